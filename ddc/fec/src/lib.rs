//! Systematic Reed-Solomon erasure coding over GF(2^8).
