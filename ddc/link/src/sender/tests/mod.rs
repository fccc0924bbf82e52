//! Tests of the sender as a whole, against naive models of a receiver.

mod pack;
mod replay;
mod send;
