//! `ddc config`: a commented configuration file to begin with.

use ddc_proxy::config::{Side, default_file};

use super::print;
use crate::exit::Failure;

/// Print a complete commented configuration file
///
/// Every key is there with its meaning and default; what must be set stands without a # in front. Fill in, then run
/// `ddc check -c FILE`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which side of the link the file is for
    #[arg(long, value_name = "SIDE")]
    side: SideArgument,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SideArgument {
    /// The source side, which sends
    Ingress,
    /// The destination side, which receives
    Egress,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    print(&default_file(match arguments.side {
        SideArgument::Ingress => Side::Ingress,
        SideArgument::Egress => Side::Egress,
    }))
}
