//! What lets a demo be watched like the real thing: StatsD, syslog, the admin listeners, and the process's own metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use ddc_proxy::admin::{AdminServer, AdminState};
use ddc_proxy::config::Admin;
use ddc_telemetry::notify::Watchdog;
use ddc_telemetry::statsd::Reporter;
use ddc_telemetry::syslog::Target;
use ddc_telemetry::{Identity, ProcessMetrics, Registry};

use super::link::Link;
use crate::admin_thread::AdminThread;

/// The demo's link has id 1; these are the usual ports of such a link.
const INGRESS_ADMIN: u16 = 9641;
/// See [`INGRESS_ADMIN`].
const EGRESS_ADMIN: u16 = 9661;

/// Where the demo's figures and logs go.
#[derive(Debug, clap::Args)]
pub(super) struct ObserveArguments {
    /// Send metrics as StatsD to this address each second; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    statsd: Vec<SocketAddr>,
    /// Send the log to this syslog target too, such as udp://127.0.0.1:5140; may be given several times
    #[arg(long, value_name = "TARGET")]
    pub(super) syslog: Vec<Target>,
    /// The label `site` of every metric and log line
    #[arg(long, value_name = "NAME")]
    site: Option<ddc_proxy::config::SiteName>,
    /// Serve both sides' admin listeners, for `ddc top` and scrapes: 127.0.0.1:9641 and 127.0.0.1:9661
    #[arg(long)]
    admin: bool,
}

impl ObserveArguments {
    /// The demo is one process, whatever sides it runs.
    pub(super) fn identity(&self) -> Identity {
        let site = self.site.as_ref().map(|site| site.as_str().to_owned());
        Identity { process: "demo".to_owned(), site }
    }

    /// A registry with the process's own metrics.
    pub(super) fn registry(&self, process: &Arc<ProcessMetrics>) -> Registry {
        process.build_info.set(env!("CARGO_PKG_VERSION"), &crate::commands::serve::instance_id());
        process.process_start_timestamp_seconds.set_time(SystemTime::now());
        Registry::new(Arc::clone(process), self.identity())
    }
}

/// Runs until it is dropped.
pub(super) struct Observed {
    views: [Arc<dyn AdminState>; 2],
    watchdog: Watchdog,
    process: Arc<ProcessMetrics>,
    admin: Option<AdminThread>,
    next: Instant,
    _reporter: Reporter,
}

impl Observed {
    /// Starts what was asked for.
    pub(super) fn start(
        arguments: &ObserveArguments,
        link: &Link,
        registry: &Registry,
        watchdog: Watchdog,
    ) -> anyhow::Result<Self> {
        let views: [Arc<dyn AdminState>; 2] = [Arc::new(link.ingress.view()), Arc::new(link.egress.view())];
        let admin = arguments.admin.then(|| {
            let listeners = [INGRESS_ADMIN, EGRESS_ADMIN].into_iter().zip(&views).map(|(port, view)| {
                let listen = Some(SocketAddr::from(([127, 0, 0, 1], port)));
                AdminServer::bind(&Admin { listen, socket: None }, Arc::clone(view))
            });
            AdminThread::start(listeners.collect::<Result<_, _>>().context("--admin")?)
        });
        let reporter = Reporter::start(registry.clone(), arguments.statsd.clone()).context("--statsd")?;
        Ok(Self {
            views,
            watchdog,
            process: Arc::clone(registry.process()),
            admin: admin.transpose()?,
            next: Instant::now(),
            _reporter: reporter,
        })
    }

    /// Called often; brings up to date what no event moves.
    pub(super) fn look_after(&mut self, now: Instant) {
        // Nobody kills the demo for standing still, so it does not matter when this fails.
        let _ = self.watchdog.poll(now, &self.process.process_ticks);
        if now >= self.next {
            self.next = now + Duration::from_secs(1);
            for view in &self.views {
                // What is wrong is shown by the demo itself.
                let _ = view.each_second();
            }
        }
    }

    /// Ends the listeners; the reporter tells the last figures.
    pub(super) fn stop(self) {
        if let Some(admin) = self.admin {
            admin.stop();
        }
    }
}
