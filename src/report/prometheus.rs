//! A run as metrics that Prometheus scrapes, at `http://ADDRESS/metrics`; with feature `prometheus`. On the loopback
//! interface unless another address is given: who can reach it can read it.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use metrics::{counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::sync::oneshot;

use super::pulse::Pulse;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::train::event::Event;

/// An endpoint; dropping it closes it and joins its thread.
pub struct Endpoint {
    recorder: PrometheusRecorder,
    close: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens at `address`.
    ///
    /// # Errors
    /// When nobody can listen there, or the thread cannot be started.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let cannot = |what: &str| {
            Error::new(Stage::Config, ErrorKind::Config, address, what)
                .hint("another --prometheus ADDR")
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| cannot("its runtime cannot be started").caused_by(e))?;
        let (recorder, serve) = {
            let _inside = runtime.enter();
            let builder = PrometheusBuilder::new().with_http_listener(address);
            builder.build().map_err(|e| cannot("cannot be listened at").caused_by(e))?
        };
        let (close, closed) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    // An endpoint that fails is no reason to end a run; whoever scrapes it sees that it is gone.
                    _ = serve => {}
                    _ = closed => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("prometheus".into()).spawn(serve);
        let thread = thread.map_err(|e| cannot("its thread cannot be started").caused_by(e))?;
        Ok(Self { recorder, close: Some(close), thread: Some(thread) })
    }

    /// Takes in an event of the run.
    pub fn event(&self, event: &Event) {
        with_local_recorder(&self.recorder, || match event {
            Event::Step(report) => {
                counter!("inflight_steps_total").absolute(report.step);
                counter!("inflight_samples_total").increment(report.samples);
                counter!("inflight_skipped_updates_total").increment(u64::from(report.skipped));
                gauge!("inflight_train_loss").set(report.loss);
                gauge!("inflight_learning_rate").set(report.lr);
                gauge!("inflight_gradient_norm").set(report.grad_norm);
                report.accuracy.into_iter().for_each(|a| gauge!("inflight_train_accuracy").set(a));
            }
            Event::Epoch(report) => {
                counter!("inflight_epochs_total").absolute(report.epoch + 1);
                report.val_loss.into_iter().for_each(|x| gauge!("inflight_validation_loss").set(x));
                let accuracy = report.val_accuracy.into_iter();
                accuracy.for_each(|a| gauge!("inflight_validation_accuracy").set(a));
            }
            Event::Pulse(pulse) => {
                for (stage, share) in Pulse::STAGES.into_iter().zip(pulse.shares()) {
                    gauge!("inflight_stage_busy_ratio", "stage" => stage).set(share);
                }
                gauge!("inflight_samples_per_second").set(pulse.samples_per_s());
                gauge!("inflight_full_slots").set(pulse.full);
                gauge!("inflight_passes_in_flight").set(pulse.in_flight);
                gauge!("inflight_read_ahead_bytes").set(pulse.ahead_bytes as f64);
            }
            Event::Checkpoint(report) => gauge!("inflight_checkpoint_step").set(report.step as f64),
            Event::Done(_) => gauge!("inflight_done").set(1.0),
        });
    }

    /// The metrics as they would be scraped now.
    pub fn text(&self) -> String {
        self.recorder.handle().render()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(close) = self.close.take() {
            // The thread may already have ended.
            let _ = close.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::train::event::StepReport;

    #[test]
    fn a_run_is_scraped_until_it_is_over() {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let endpoint = Endpoint::open(address).expect("opens");
        assert!(Endpoint::open(address).is_err(), "two cannot listen at one address");
        let report = StepReport { step: 7, samples: 32, loss: 0.5, ..Default::default() };
        endpoint.event(&Event::Step(report));
        let pulse = Pulse { over_s: 2.0, device_s: 1.0, samples: 10, ..Default::default() };
        endpoint.event(&Event::Pulse(Box::new(pulse)));
        let mut stream = TcpStream::connect(address).expect("connects");
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("asks");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for part in [
            "inflight_steps_total 7",
            "inflight_samples_total 32",
            "inflight_train_loss 0.5",
            "inflight_stage_busy_ratio{stage=\"device\"} 0.5",
            "inflight_samples_per_second 5",
            "# TYPE inflight_steps_total counter",
        ] {
            assert!(answer.contains(part), "{part} is not in\n{answer}");
        }
        drop(endpoint);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }
}
