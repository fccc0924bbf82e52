//! The ingress and the egress: sources, sinks, pipelines, admin API, drain.

pub mod admin;
pub mod config;
