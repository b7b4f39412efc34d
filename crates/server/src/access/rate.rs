//! How many requests, and how many wrong tokens, may come from one address.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use quick_cache::sync::Cache;

use super::client::Client;
use crate::app::Shared;
use crate::problem::Problem;

/// Requests per second from an address that is not on this machine, where nothing else was asked for.
const DEFAULT: u32 = 100;
/// Seconds whose requests may come at once.
const BURST: u32 = 10;
/// Wrong tokens that may come at once, and time after which one more may.
const WRONG: (u32, Duration) = (30, Duration::from_secs(2));
/// Most addresses remembered; of those beyond, the ones seen least are forgotten.
const REMEMBERED: usize = 1 << 16;

/// What is remembered of addresses.
pub(crate) struct Rates {
    addresses: Cache<IpAddr, Arc<Visitor>>,
    /// Requests per second and address; `None` for no limit.
    requests: Option<NonZeroU32>,
    /// Whether addresses of this machine are limited, too.
    loopback: bool,
    clock: DefaultClock,
    begun: Instant,
}

struct Visitor {
    requests: Option<DefaultDirectRateLimiter>,
    wrong: DefaultDirectRateLimiter,
    /// Milliseconds from the beginning to when tokens are looked at again.
    refused_until: AtomicU64,
}

impl Rates {
    /// `requests` per second and address, 0 for no limit; `None` for the default, which leaves this machine out.
    pub(crate) fn new(requests: Option<u32>) -> Self {
        Self {
            addresses: Cache::new(REMEMBERED),
            requests: NonZeroU32::new(requests.unwrap_or(DEFAULT)),
            loopback: requests.is_some(),
            clock: DefaultClock::default(),
            begun: Instant::now(),
        }
    }

    fn visitor(&self, client: IpAddr) -> Arc<Visitor> {
        let key = network(client);
        if let Some(visitor) = self.addresses.get(&key) {
            return visitor;
        }
        let limited = self.requests.filter(|_| self.loopback || !client.is_loopback());
        let requests = limited.map(|per_second| {
            let quota = Quota::per_second(per_second);
            DefaultDirectRateLimiter::direct(quota.allow_burst(per_second.saturating_mul(several(BURST))))
        });
        let wrong = Quota::with_period(WRONG.1).unwrap_or(Quota::per_second(several(1)));
        let wrong = DefaultDirectRateLimiter::direct(wrong.allow_burst(several(WRONG.0)));
        let visitor = Arc::new(Visitor { requests, wrong, refused_until: AtomicU64::new(0) });
        // Of two that come at once, the second counts from its own beginning: one more burst, once.
        self.addresses.insert(key, visitor.clone());
        visitor
    }

    /// Counts a request.
    ///
    /// # Errors
    /// Too many came from this address.
    fn request(&self, client: IpAddr) -> Result<(), Problem> {
        let visitor = self.visitor(client);
        let Some(limiter) = &visitor.requests else { return Ok(()) };
        limiter.check().map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            too_many("too many requests came from this address", wait)
        })
    }

    /// # Errors
    /// So many wrong tokens came from this address that none is looked at for a while.
    pub(crate) fn may_try(&self, client: IpAddr) -> Result<(), Problem> {
        let now = self.begun.elapsed().as_millis() as u64;
        let until =
            self.addresses.get(&network(client)).map_or(0, |visitor| visitor.refused_until.load(Relaxed));
        match until.checked_sub(now) {
            None | Some(0) => Ok(()),
            Some(left) => {
                Err(too_many("too many wrong tokens came from this address", Duration::from_millis(left)))
            }
        }
    }

    /// Counts a wrong token.
    pub(crate) fn wrong_token(&self, client: IpAddr) {
        let visitor = self.visitor(client);
        if let Err(until) = visitor.wrong.check() {
            let until = self.begun.elapsed() + until.wait_time_from(self.clock.now());
            visitor.refused_until.store(until.as_millis() as u64, Relaxed);
            tracing::warn!(%client, "too many wrong tokens: none is looked at for a while");
        }
    }
}

const fn several(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not zero")
}

fn too_many(what: &str, wait: Duration) -> Problem {
    let seconds = (wait.as_secs_f32().ceil() as u32).max(1);
    let message = format!("{what}: try again in {seconds} seconds");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message).retry_after(seconds)
}

/// The address, or the network that one client of IPv6 has for itself.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

/// Sends away who comes too often. Whether the server lives can be asked any number of times.
pub(crate) async fn limit_rate(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let is_exempt = matches!(request.uri().path(), "/healthz" | "/readyz");
    let client = request.extensions().get::<Client>().filter(|_| !is_exempt);
    match client.map_or(Ok(()), |client| app.rates.request(client.0)) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_limit() {
        let rates = Rates::new(Some(2));
        let served = |client: &str| (0..50).filter(|_| rates.request(ip(client)).is_ok()).count();
        assert!((20..30).contains(&served("1.2.3.4")));
        assert_eq!(rates.request(ip("1.2.3.4")).unwrap_err().status(), 429);
        assert!(served("1.2.3.5") >= 20);
        assert!(served("127.0.0.1") < 50, "asked for, it is for all");
        // A client of IPv6 has a whole network.
        assert!(served("2001:db8::1") >= 20);
        assert!(served("2001:db8::2") < 10);
        assert!(served("2001:db8:0:1::2") >= 20);
    }

    #[test]
    fn this_machine_is_not_limited_by_default_and_nobody_by_zero() {
        let (default, none) = (Rates::new(None), Rates::new(Some(0)));
        for _ in 0..2 * DEFAULT * BURST {
            default.request(ip("127.0.0.1")).unwrap();
            none.request(ip("1.2.3.4")).unwrap();
        }
        let served = (0..2 * DEFAULT * BURST).filter(|_| default.request(ip("1.2.3.4")).is_ok()).count();
        assert!(served < 2 * (DEFAULT * BURST) as usize);
    }

    #[test]
    fn wrong_tokens_are_no_longer_looked_at_after_a_while() {
        let rates = Rates::new(Some(0));
        for _ in 0..WRONG.0 {
            rates.may_try(ip("1.2.3.4")).unwrap();
            rates.wrong_token(ip("1.2.3.4"));
        }
        rates.may_try(ip("1.2.3.4")).unwrap();
        rates.wrong_token(ip("1.2.3.4"));
        assert_eq!(rates.may_try(ip("1.2.3.4")).unwrap_err().status(), 429);
        rates.may_try(ip("1.2.3.5")).unwrap();
    }

    #[test]
    fn the_table_is_bounded() {
        let rates = Rates::new(Some(1));
        for i in 0..4 * REMEMBERED as u32 {
            let _ = rates.request(IpAddr::from(i.to_be_bytes()));
        }
        assert!(rates.addresses.len() <= REMEMBERED, "{}", rates.addresses.len());
    }
}
