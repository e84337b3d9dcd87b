//! The operator's metrics: of itself, counted as it works; and of each job, made at every scrape from what is known, so that
//! they are there without the job's coordinator and gone with the resource. Nothing is decided by them.

mod docs;
mod jobs;

pub use docs::{ALL, Doc, Kind};
pub use jobs::JobView;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, TextEncoder};
use std::collections::HashMap;
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
    pub fn text(&self, counts: Counts, jobs: &[JobView]) -> prometheus::Result<String> {
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
            jobs::add(job, &mut scrape)?;
        }
        families.extend(scrape.families());
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families)
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

enum Vector {
    Gauge(GaugeVec),
    Counter(CounterVec),
}

/// Series of one scrape.
#[derive(Default)]
struct Scrape(HashMap<&'static str, Vector>);

impl Scrape {
    fn add(&mut self, doc: &'static Doc, labels: &[&str], value: f64) -> prometheus::Result<()> {
        let vector = match self.0.entry(doc.name) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(match doc.kind {
                Kind::Counter => Vector::Counter(CounterVec::new(options(doc), doc.labels)?),
                Kind::Gauge | Kind::Histogram => Vector::Gauge(GaugeVec::new(options(doc), doc.labels)?),
            }),
        };
        match vector {
            Vector::Gauge(gauges) => gauges.get_metric_with_label_values(labels)?.set(value),
            Vector::Counter(counters) => counters.get_metric_with_label_values(labels)?.inc_by(value),
        }
        Ok(())
    }

    fn families(&self) -> Vec<MetricFamily> {
        let families = self.0.values().flat_map(|vector| match vector {
            Vector::Gauge(gauges) => gauges.collect(),
            Vector::Counter(counters) => counters.collect(),
        });
        families.collect()
    }
}

fn resident_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}
