//! Metrics as text, in Prometheus's format and in OpenMetrics.
//!
//! The two differ in little: where a counter's `_total` is part of its name, in units of their own
//! line, and in the end mark.

use crate::metrics::Metrics;
use curtsy_lifecycle::Phase;
use std::fmt::{Display, Write};

/// The media type of each format.
pub(crate) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// In Prometheus's text format, version 0.0.4: what a scrape is answered with.
    pub fn prometheus(&self) -> String {
        self.text(false)
    }

    /// In OpenMetrics 1.0.
    pub fn open_metrics(&self) -> String {
        self.text(true)
    }

    fn text(&self, open: bool) -> String {
        let mut text = Text {
            out: String::with_capacity(8 << 10),
            open,
        };
        self.describe_life(&mut text);
        self.describe_connections(&mut text);
        self.describe_requests(&mut text);
        if open {
            text.out.push_str("# EOF\n");
        }
        text.out
    }

    fn describe_life(&self, text: &mut Text) {
        let snapshot = &self.snapshot;
        text.head("curtsy_build_info", "gauge", "", "The version that runs.");
        text.line(
            "curtsy_build_info",
            &[("version", env!("CARGO_PKG_VERSION"))],
            1,
        );
        text.head(
            "curtsy_phase",
            "gauge",
            "",
            "1 for the phase that the server is in, 0 for the others.",
        );
        for phase in Phase::ALL {
            let is_now = u8::from(phase == snapshot.phase);
            text.line("curtsy_phase", &[("phase", phase.name())], is_now);
        }
        text.gauge(
            "curtsy_generation",
            "",
            "0 for the first process, one more for every successor.",
            snapshot.generation,
        );
        text.counter("curtsy_drains", "", "Drains begun.", self.drains);
        text.counter(
            "curtsy_drains_recalled",
            "",
            "Drains recalled while lame duck.",
            self.recalls,
        );
        text.counters(
            "curtsy_drains_ended",
            "Drains ended, by how.",
            "result",
            &self.endings,
        );
        let (deadline, gone) = (snapshot.deadline_in, snapshot.draining_for);
        text.gauge(
            "curtsy_draining_seconds",
            "seconds",
            "How long the drain has been going on; 0 before it.",
            gone.as_secs_f64(),
        );
        text.gauge(
            "curtsy_drain_deadline_seconds",
            "seconds",
            "How long until the drain's deadline; 0 before a drain.",
            deadline.unwrap_or_default().as_secs_f64(),
        );
        text.gauge(
            "curtsy_shutdown_hooks_running",
            "",
            "Shutdown hooks that have not finished.",
            snapshot.hooks,
        );
        text.counters(
            "curtsy_handovers",
            "Restarts, by result: the next process serves, or this one went on.",
            "result",
            &[
                ("succeeded", self.handovers_succeeded),
                ("failed", self.handovers_failed),
            ],
        );
        text.counters(
            "curtsy_handover_connections",
            "Connections that went from process to process: taken over from the one before, taken by the next, returned by it.",
            "direction",
            &[("in", self.adopted), ("out", self.given), ("returned", self.returned)],
        );
        text.counter(
            "curtsy_access_log_dropped",
            "",
            "Lines of the access log that were not written.",
            self.access_log_dropped,
        );
        text.counter(
            "curtsy_mode_switches",
            "",
            "Listeners switched to another mode.",
            self.switches,
        );
    }

    fn describe_connections(&self, text: &mut Text) {
        let counts = &self.snapshot.counts;
        text.head(
            "curtsy_connections",
            "gauge",
            "",
            "Open connections by state; the parked ones are new or idle.",
        );
        for (state, count) in [
            ("handshake", counts.handshake),
            ("new", counts.new),
            ("active", counts.active),
            ("idle", counts.idle),
            ("upgraded", counts.upgraded),
        ] {
            text.line("curtsy_connections", &[("state", state)], count);
        }
        text.gauge(
            "curtsy_connections_parked",
            "",
            "Open connections that are parked: bare descriptors, no buffers.",
            counts.parked,
        );
        text.counter(
            "curtsy_connections_accepted",
            "",
            "Connections accepted.",
            self.accepted,
        );
        text.counter(
            "curtsy_parkings",
            "",
            "How often a connection was parked.",
            self.parkings,
        );
        text.counters(
            "curtsy_accept_errors",
            "Errors of accepting, by reason.",
            "reason",
            &self.accept_errors,
        );
        text.counters(
            "curtsy_handshake_failures",
            "Connections that came to nothing before their first request, by reason.",
            "reason",
            &self.handshake_failures,
        );
        text.counter(
            "curtsy_received_bytes",
            "bytes",
            "Bytes of HTTP read, without what TLS adds.",
            self.received_bytes,
        );
        text.counter(
            "curtsy_sent_bytes",
            "bytes",
            "Bytes of HTTP written, without what TLS adds.",
            self.sent_bytes,
        );
    }

    fn describe_requests(&self, text: &mut Text) {
        text.counter(
            "curtsy_http_requests",
            "",
            "Requests whose head was read and understood.",
            self.requests,
        );
        text.counter(
            "curtsy_http_malformed_requests",
            "",
            "Heads that were no request; refused by the server itself.",
            self.malformed,
        );
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let answers: Vec<_> = classes.into_iter().zip(self.answers).collect();
        text.counters(
            "curtsy_http_responses",
            "Answers by the class of their status.",
            "class",
            &answers,
        );
        text.gauge(
            "curtsy_http_stragglers",
            "",
            "Requests and upgraded connections that are running.",
            self.snapshot.stragglers.len(),
        );
        let oldest = self.snapshot.stragglers.first().map(|oldest| oldest.age);
        text.gauge(
            "curtsy_http_oldest_straggler_seconds",
            "seconds",
            "The age of the oldest of them; 0 if there is none.",
            oldest.unwrap_or_default().as_secs_f64(),
        );
        let name = "curtsy_http_response_duration_seconds";
        text.head(
            name,
            "histogram",
            "seconds",
            "From the last byte read of a request's head to the last byte of its answer, to a few milliseconds.",
        );
        let mut below = 0;
        for (bound, count) in self.latency.buckets() {
            below += count;
            let bound = bound.map_or("+Inf".to_owned(), |bound| seconds(bound.as_secs_f64()));
            text.line(&format!("{name}_bucket"), &[("le", &bound)], below);
        }
        text.line(
            &format!("{name}_sum"),
            &[],
            self.latency.sum().as_secs_f64(),
        );
        text.line(&format!("{name}_count"), &[], self.latency.count());
    }
}

/// A bound as both formats want it: never without a point.
fn seconds(bound: f64) -> String {
    format!("{bound:?}")
}

struct Text {
    out: String,
    open: bool,
}

impl Text {
    fn head(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        let out = &mut self.out;
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {name} {help}");
        let _ = writeln!(out, "# TYPE {name} {kind}");
        if self.open && !unit.is_empty() {
            let _ = writeln!(out, "# UNIT {name} {unit}");
        }
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let mark = if index == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{mark}{label}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    fn gauge(&mut self, name: &str, unit: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", unit, help);
        self.line(name, &[], value);
    }

    /// The head of the counter that is named without its `_total`; its full name.
    fn counter_head(&mut self, name: &str, unit: &str, help: &str) -> String {
        let full = format!("{name}_total");
        let family = if self.open { name } else { &full };
        self.head(family, "counter", unit, help);
        full
    }

    fn counter(&mut self, name: &str, unit: &str, help: &str, value: u64) {
        let full = self.counter_head(name, unit, help);
        self.line(&full, &[], value);
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        let full = self.counter_head(name, "", help);
        for (value, count) in values {
            self.line(&full, &[(label, value)], count);
        }
    }
}
