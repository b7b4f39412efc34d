//! All connections, to choose one to close when there are too many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::activity::Activity;

/// All connections that were not asked to close.
#[derive(Default)]
pub(crate) struct Crowd(Mutex<Members>);

#[derive(Default)]
struct Members {
    next: u64,
    all: HashMap<u64, Arc<Activity>>,
}

/// A connection, a part of the crowd until this is dropped.
pub(crate) struct Member {
    crowd: Arc<Crowd>,
    number: u64,
    activity: Arc<Activity>,
}

impl Crowd {
    /// One more.
    pub(crate) fn join(self: &Arc<Self>) -> Member {
        let activity = Arc::new(Activity::new());
        let mut members = self.members();
        let number = members.next;
        members.next += 1;
        members.all.insert(number, activity.clone());
        Member { crowd: self.clone(), number, activity }
    }

    /// Asks the connection on which nothing happened for longest to close; false if all are busy.
    pub(crate) fn close_quietest(&self) -> bool {
        let mut members = self.members();
        let quiet = members.all.iter().filter_map(|(number, a)| Some((a.quiet()?, *number)));
        let Some((_, number)) = quiet.min() else { return false };
        if let Some(activity) = members.all.remove(&number) {
            activity.close();
        }
        true
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    pub(crate) fn activity(&self) -> Arc<Activity> {
        self.activity.clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.members().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_connections_stay_and_each_is_chosen_once() {
        let crowd = Arc::new(Crowd::default());
        let members: Vec<Member> = (0..3).map(|_| crowd.join()).collect();
        let busy = members[0].activity().handle();
        assert!(crowd.close_quietest() && crowd.close_quietest());
        assert!(!crowd.close_quietest(), "the busy one stays");
        drop(busy);
        assert!(crowd.close_quietest());
        assert!(!crowd.close_quietest());
        drop(members);
        assert!(crowd.members().all.is_empty());
    }
}
