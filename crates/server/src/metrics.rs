//! Counters for Prometheus.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::shelf::Shelf;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IndexLabels {
    index: String,
}

/// The counters of a server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    in_flight: Gauge,
    batches: Histogram,
    items: Family<IndexLabels, Gauge>,
    unpublished: Family<IndexLabels, Gauge>,
    shelves: Mutex<Vec<Arc<Shelf>>>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("semblance");
        let requests = Family::default();
        let durations = Family::new_with_constructor(seconds as fn() -> Histogram);
        let (in_flight, items, unpublished) = (Gauge::default(), Family::default(), Family::default());
        let batches = Histogram::new(exponential_buckets(1.0, 2.0, 8));
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register("http_request_duration_seconds", "Time to answer a request", durations.clone());
        registry.register("http_requests_in_flight", "Requests being answered", in_flight.clone());
        registry.register("embed_batch_photos", "Photographs the model got at once", batches.clone());
        registry.register("index_items", "Items of an index", items.clone());
        registry.register(
            "index_unpublished_changes",
            "Changes other processes do not see yet",
            unpublished.clone(),
        );
        let shelves = Mutex::default();
        Self { registry, requests, durations, in_flight, batches, items, unpublished, shelves }
    }

    /// Counts the sizes of batches.
    pub(crate) fn batches(&self) -> Histogram {
        self.batches.clone()
    }

    /// Tells of this index, too.
    pub(crate) fn watch(&self, shelf: &Arc<Shelf>) {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner).push(shelf.clone());
    }

    /// Counts a request that begins, till the value is dropped.
    pub(crate) fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels { method: method.to_owned(), route: route.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&RouteLabels { route: route.to_owned() }).observe(took.as_secs_f64());
    }

    /// All of it in the text format of Prometheus (OpenMetrics).
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        for shelf in self.shelves.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = IndexLabels { index: shelf.name.clone() };
            self.items.get_or_create(&labels).set(shelf.index.len() as i64);
            self.unpublished.get_or_create(&labels).set(shelf.unpublished() as i64);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A request that is being answered.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 18))
}
