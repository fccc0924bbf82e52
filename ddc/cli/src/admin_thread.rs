//! The thread that serves the admin listeners of a process: `ddc ingress`, `ddc egress`, and `ddc demo --admin`.

use std::thread::{self, JoinHandle};

use ddc_proxy::admin::AdminServer;
use tokio::sync::watch;

/// The admin listeners of all links, on one thread.
pub(crate) struct AdminThread {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl AdminThread {
    pub(crate) fn start(servers: Vec<AdminServer>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new().name("ddc-admin".into()).spawn(move || {
            runtime.block_on(async {
                let running: Vec<_> = servers
                    .into_iter()
                    .map(|server| {
                        let mut stopped = stopped.clone();
                        tokio::spawn(server.run(async move {
                            // An error means that the process is ending without asking: that is a stop as well.
                            let _ = stopped.wait_for(|stop| *stop).await;
                        }))
                    })
                    .collect();
                for server in running {
                    if let Ok(Err(error)) = server.await {
                        tracing::error!(%error, "an admin listener has ended");
                    }
                }
            });
        })?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) {
        let _ = self.stop.send(true);
        if self.thread.join().is_err() {
            tracing::error!("the admin thread panicked");
        }
    }
}
