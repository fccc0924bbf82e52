//! The ingress and the egress: sources, sinks, pipelines, admin API, drain.
