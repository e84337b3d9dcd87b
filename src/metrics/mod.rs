//! The operator's metrics: of itself, counted as it works; and of each job, made at every scrape from what is known, so that
//! they are there without the job's coordinator and gone with the resource. Nothing is decided by them.

mod docs;
mod jobs;

pub use docs::{ALL, Doc, Kind};
pub use jobs::JobView;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, TextEncoder};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

/// Reconciles are quick, or wait for a coordinator.
const SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

pub struct Metrics {
    reconciles: IntCounterVec,
    duration: HistogramVec,
    errors: IntCounterVec,
    in_flight: IntGaugeVec,
    api_requests: IntCounterVec,
    watch_errors: IntCounterVec,
}

/// What is counted elsewhere and only shown here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub synced: bool,
    pub leads: bool,
    pub jobs: usize,
    pub savepoints: usize,
    pub backoff: usize,
    pub coordinators: usize,
}

impl Metrics {
    /// # Errors
    /// A name in the table is no metric's name.
    pub fn new() -> prometheus::Result<Metrics> {
        let histogram = HistogramOpts::new(docs::DURATION.name, docs::DURATION.help).buckets(SECONDS.to_vec());
        Ok(Metrics {
            reconciles: IntCounterVec::new(options(&docs::RECONCILES), docs::RECONCILES.labels)?,
            duration: HistogramVec::new(histogram, docs::DURATION.labels)?,
            errors: IntCounterVec::new(options(&docs::ERRORS), docs::ERRORS.labels)?,
            in_flight: IntGaugeVec::new(options(&docs::IN_FLIGHT), docs::IN_FLIGHT.labels)?,
            api_requests: IntCounterVec::new(options(&docs::API_REQUESTS), docs::API_REQUESTS.labels)?,
            watch_errors: IntCounterVec::new(options(&docs::WATCH_ERRORS), docs::WATCH_ERRORS.labels)?,
        })
    }

    /// One reconcile, from here until the guard is told how it ended.
    pub fn reconcile(&self, controller: &'static str) -> Reconcile<'_> {
        self.in_flight.with_label_values(&[controller]).inc();
        Reconcile { metrics: self, controller, began: Instant::now(), result: "canceled" }
    }

    pub fn reconcile_error(&self, controller: &str, reason: &str) {
        self.errors.with_label_values(&[controller, reason]).inc();
    }

    /// Without a code there was no answer.
    pub fn api_request(&self, verb: &str, resource: &str, code: Option<u16>) {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        self.api_requests.with_label_values(&[verb, resource, &code]).inc();
    }

    pub fn watch_error(&self, resource: &str) {
        self.watch_errors.with_label_values(&[resource]).inc();
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// A label or a name is not allowed.
    pub fn text(&self, counts: Counts, jobs: impl IntoIterator<Item = JobView>) -> prometheus::Result<String> {
        let mut families = Vec::new();
        families.extend(self.reconciles.collect());
        families.extend(self.duration.collect());
        families.extend(self.errors.collect());
        families.extend(self.in_flight.collect());
        families.extend(self.api_requests.collect());
        families.extend(self.watch_errors.collect());
        let mut scrape = Scrape::default();
        scrape.add(&docs::LEADER, &[], f64::from(u8::from(counts.leads)))?;
        scrape.add(&docs::SYNCED, &[], f64::from(u8::from(counts.synced)))?;
        scrape.add(&docs::OBJECTS, &["StreamJob"], counts.jobs as f64)?;
        scrape.add(&docs::OBJECTS, &["Savepoint"], counts.savepoints as f64)?;
        scrape.add(&docs::BACKOFF, &[], counts.backoff as f64)?;
        scrape.add(&docs::COORDINATORS, &[], counts.coordinators as f64)?;
        scrape.add(&docs::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0)?;
        if let Some(bytes) = resident_memory() {
            scrape.add(&docs::MEMORY, &[], bytes)?;
        }
        for job in jobs {
            jobs::add(&job, &mut scrape)?;
        }
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = TextEncoder::new().encode_to_string(&families)?;
        scrape.write(&mut text);
        Ok(text)
    }
}

/// Counts a reconcile when it is dropped, also when it was abandoned half way.
pub struct Reconcile<'a> {
    metrics: &'a Metrics,
    controller: &'static str,
    began: Instant,
    result: &'static str,
}

impl Reconcile<'_> {
    pub fn ended(mut self, result: &'static str) {
        self.result = result;
    }
}

impl Drop for Reconcile<'_> {
    fn drop(&mut self) {
        let metrics = self.metrics;
        metrics.in_flight.with_label_values(&[self.controller]).dec();
        metrics.reconciles.with_label_values(&[self.controller, self.result]).inc();
        metrics.duration.with_label_values(&[self.controller]).observe(self.began.elapsed().as_secs_f64());
    }
}

fn options(doc: &Doc) -> Opts {
    Opts::new(doc.name, doc.help)
}

/// Series of one scrape, as text: with a thousand jobs there are tens of thousands, so nothing else is kept of them.
#[derive(Default)]
struct Scrape(BTreeMap<&'static str, (&'static Doc, String)>);

impl Scrape {
    fn add(&mut self, doc: &'static Doc, labels: &[&str], value: f64) -> prometheus::Result<()> {
        if labels.len() != doc.labels.len() {
            return Err(prometheus::Error::InconsistentCardinality { expect: doc.labels.len(), got: labels.len() });
        }
        let (_, text) = self.0.entry(doc.name).or_insert_with(|| (doc, String::new()));
        text.push_str(doc.name);
        let mut labels: Vec<(&str, &str)> = doc.labels.iter().copied().zip(labels.iter().copied()).collect();
        labels.sort_unstable();
        for (index, (label, value)) in labels.iter().enumerate() {
            text.push(if index == 0 { '{' } else { ',' });
            text.push_str(label);
            text.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
            text.push('"');
        }
        // Writing into a string does not fail.
        let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
        Ok(())
    }

    fn write(self, to: &mut String) {
        to.reserve(self.0.values().map(|(doc, text)| text.len() + doc.help.len() + 2 * doc.name.len() + 32).sum());
        for (name, (doc, text)) in self.0 {
            let kind = if doc.kind == Kind::Counter { "counter" } else { "gauge" };
            let _ = write!(to, "# HELP {name} {}\n# TYPE {name} {kind}\n{text}", doc.help);
        }
    }
}

fn resident_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}
