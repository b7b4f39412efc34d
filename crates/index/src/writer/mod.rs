//! The writer: one at a time, whose acknowledged writes are not lost.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use self::group_commit::GroupCommit;
use crate::config::{Durability, IndexConfig, Memory, Progress, is_finished};
use crate::error::{IndexError, Result};
use crate::index::Index;
use crate::item::{Item, MAX_KEY_BYTES, NewItem};
use crate::manifest::{FILE_NAME, Manifest};
use crate::publish::{publish, remove_others};
use crate::snapshot::Snapshot;
use crate::space;
use crate::store::{self, Change, Store};
use crate::tail::{Live, State, Tail};
use crate::vector_index::check_vectors;

mod group_commit;

const LOCK: &str = "writer.lock";
/// How long a lock that is held is tried again.
const LOCK_WAIT: Duration = Duration::from_millis(300);
/// How much of the disk the store takes for what is written to it, until it reclaims what is out of date.
const STORED_TIMES: u64 = 3;

/// An index open for writing. There is one writer of an index at a time, on one machine; its methods can be called from several
/// threads. What [`Self::upsert`] and [`Self::delete`] acknowledged is kept as the index's [`Durability`] promises;
/// other processes see it after [`Self::finish`].
pub struct IndexWriter {
    dir: PathBuf,
    inner: Mutex<Inner>,
    commit: GroupCommit,
    store: Store,
    durability: Durability,
    _lock: File,
}

struct Inner {
    state: store::State,
    snapshot: Option<Arc<Snapshot>>,
    /// What readers of this process share with the writer, once there are any.
    live: Option<Arc<Live>>,
}

impl IndexWriter {
    /// Begins a new index in `dir`, which is made if need be. Refuses a folder that holds an index or anything else.
    pub fn create(dir: impl AsRef<Path>, config: &IndexConfig) -> Result<Self> {
        Self::create_in(dir.as_ref(), config, false)
    }

    fn create_in(dir: &Path, config: &IndexConfig, beside_others: bool) -> Result<Self> {
        config.validate()?;
        let finished = is_finished(dir);
        if finished || store::exists(dir) {
            return Err(IndexError::AlreadyExists { dir: dir.into(), finished });
        }
        fs::create_dir_all(dir).map_err(|e| IndexError::io(dir, e))?;
        let lock = lock(dir)?;
        let mut others = fs::read_dir(dir).map_err(|e| IndexError::io(dir, e))?.flatten();
        if !beside_others && others.any(|e| e.file_name() != LOCK && e.file_name() != "store") {
            drop(lock);
            let _ = fs::remove_file(dir.join(LOCK));
            return Err(IndexError::NotAnIndex { dir: dir.into() });
        }
        Self::with_store(dir, Store::create(dir, config)?, lock)
    }

    /// Opens an index, finished or not, to go on writing.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        if !store::exists(dir) {
            return Err(IndexError::Missing { dir: dir.into() });
        }
        let lock = lock(dir)?;
        Self::with_store(dir, Store::open(dir)?, lock)
    }

    /// Goes on with an index that was begun with this configuration, or begins it: a build that is repeated after it
    /// was interrupted. Refuses an index of another dimension or model, and a finished one.
    pub fn resume(dir: impl AsRef<Path>, config: &IndexConfig) -> Result<Self> {
        let dir = dir.as_ref();
        if is_finished(dir) {
            return Err(IndexError::AlreadyExists { dir: dir.into(), finished: true });
        }
        if !store::exists(dir) {
            return Self::create(dir, config);
        }
        let writer = Self::open(dir)?;
        let stored = writer.config();
        if stored.model != config.model {
            let (index, given) = (stored.model.clone(), config.model.clone());
            return Err(IndexError::WrongModel { dir: dir.into(), index, given });
        }
        if stored.dim != config.dim {
            return Err(IndexError::WrongDimension { expected: stored.dim, received: config.dim });
        }
        Ok(writer)
    }

    /// Removes the index in `dir`, if there is one, and begins a new one. Other files in the folder are left alone.
    pub fn replace(dir: impl AsRef<Path>, config: &IndexConfig) -> Result<Self> {
        let dir = dir.as_ref();
        config.validate()?;
        let was_index = is_finished(dir) || store::exists(dir);
        if was_index {
            let _lock = lock(dir)?;
            // The manifest first: what is left after a crash is then no finished index.
            for name in [FILE_NAME, "store"] {
                let path = dir.join(name);
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed
                    .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
                    .map_err(|e| IndexError::io(&path, e))?;
            }
            remove_others(dir, None);
        }
        Self::create_in(dir, config, was_index)
    }

    fn with_store(dir: &Path, store: Store, lock: File) -> Result<Self> {
        let durability = store.config().durability;
        // A damaged or missing published state is no reason not to write: finishing makes a new one from the store.
        let snapshot = match Snapshot::open(dir, Memory::Auto) {
            Ok(snapshot) => Some(Arc::new(snapshot)),
            Err(error @ IndexError::FormatVersion { .. }) => return Err(error),
            Err(_) => None,
        };
        let manifest = snapshot.as_ref().map(|s| s.manifest.clone());
        if manifest.is_some() || !is_finished(dir) {
            remove_others(dir, manifest.as_deref());
        }
        let inner = Mutex::new(Inner { state: store.state()?, snapshot, live: None });
        Ok(Self { dir: dir.into(), inner, commit: GroupCommit::default(), store, durability, _lock: lock })
    }

    /// What the index is made with.
    pub fn config(&self) -> &IndexConfig {
        self.store.config()
    }

    /// Folder of the index.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Changes what writes through this writer promise.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.inner().state.items as usize
    }

    /// True if there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is an item with this key.
    pub fn contains(&self, key: &str) -> Result<bool> {
        Ok(self.store.id_of(key)?.is_some())
    }

    /// Id of the item with this key.
    pub fn find(&self, key: &str) -> Result<Option<u64>> {
        self.store.id_of(key)
    }

    /// The item with an id, also if it is not published yet.
    pub fn item(&self, id: u64) -> Result<Option<Item>> {
        self.store.item(id)
    }

    /// Adds items with their `vectors` (items × dim numbers, unit norm), all or none; an item whose key is there
    /// already takes the place of the other and keeps its id. Of one key twice in a call the later wins. Returns the
    /// ids. Batches of 512 to 4,096 are quickest.
    pub fn upsert(&self, items: &[NewItem], vectors: &[f32]) -> Result<Vec<u64>> {
        let dim = self.config().dim;
        if items.len() == 1 && vectors.len() != dim {
            return Err(IndexError::WrongDimension { expected: dim, received: vectors.len() });
        }
        check_vectors(vectors, items.len(), dim)?;
        items.iter().try_for_each(check_item)?;
        if items.is_empty() {
            return Ok(vec![]);
        }
        space::check(&self.dir, STORED_TIMES * (vectors.len() * 4 + items.len() * 512) as u64)?;
        let mut inner = self.inner();
        let mut state = inner.state;
        let mut ids = Vec::with_capacity(items.len());
        let mut last: HashMap<&str, usize> = HashMap::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let id = match (last.insert(&item.key, at), self.store.id_of(&item.key)?) {
                (Some(earlier), _) => ids[earlier],
                (None, Some(id)) => id,
                (None, None) => {
                    state.items += 1;
                    state.next_id += 1;
                    state.next_id - 1
                }
            };
            ids.push(id);
        }
        let kept = |at: &usize| last[items[*at].key.as_str()] == *at;
        let rows: Vec<usize> = (0..items.len()).filter(kept).collect();
        let row = |&at: &usize| (ids[at], &items[at], &vectors[at * dim..(at + 1) * dim]);
        let change = Change { upserts: rows.iter().map(row).collect(), deletes: vec![] };
        self.apply(&mut inner, &change, state)?;
        drop(inner);
        self.acknowledge()?;
        Ok(ids)
    }

    /// Removes items, all or none; unknown ids are passed over. Returns how many there were.
    pub fn delete(&self, ids: &[u64]) -> Result<usize> {
        let mut inner = self.inner();
        let mut deletes: Vec<(u64, String)> = Vec::with_capacity(ids.len());
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        for id in sorted {
            if let Some(item) = self.store.item(id)? {
                deletes.push((id, item.key));
            }
        }
        let count = deletes.len();
        if count > 0 {
            let state = store::State { items: inner.state.items - count as u64, ..inner.state };
            self.apply(&mut inner, &Change { upserts: vec![], deletes }, state)?;
            drop(inner);
            self.acknowledge()?;
        }
        Ok(count)
    }

    /// Removes the items with these keys, all or none; unknown keys are passed over. Returns how many there were.
    pub fn delete_keys<K: AsRef<str>>(&self, keys: &[K]) -> Result<usize> {
        let ids = keys.iter().map(|key| self.store.id_of(key.as_ref())).collect::<Result<Vec<_>>>()?;
        self.delete(&ids.into_iter().flatten().collect::<Vec<_>>())
    }

    fn apply(&self, inner: &mut Inner, change: &Change<'_>, mut state: store::State) -> Result<()> {
        state.sequence += 1;
        self.store.apply(change, state)?;
        inner.state = state;
        // Readers of this process see the batch from here on; without any there is nothing to keep in memory for.
        match &inner.live {
            Some(live) if Arc::strong_count(live) > 1 => {
                let now = live.state();
                let deleted: Vec<u64> = change.deletes.iter().map(|d| d.0).collect();
                let items = change.upserts.iter().map(|(id, item, _)| (*item).clone().with_id(*id)).collect();
                let vectors: Vec<f32> = change.upserts.iter().flat_map(|u| u.2.iter().copied()).collect();
                let tail = now.tail.with(&deleted, items, &vectors, self.config().dim);
                live.swap(State { snapshot: now.snapshot.clone(), tail });
            }
            _ => inner.live = None,
        }
        Ok(())
    }

    fn acknowledge(&self) -> Result<()> {
        match self.durability {
            Durability::Power => self.commit.wait(|| self.store.sync()),
            Durability::Process => self.commit.wait(|| self.store.flush()),
            Durability::Finish => Ok(()),
        }
    }

    /// Makes every write so far survive a power cut, whatever the durability.
    pub fn sync(&self) -> Result<()> {
        self.commit.wait(|| self.store.sync())
    }

    /// Publishes: builds or extends the graph and writes the files readers open, the manifest last. Writes that arrive
    /// meanwhile wait. The writer can go on afterwards.
    pub fn finish(&self, progress: &(dyn Fn(Progress) + Sync)) -> Result<Manifest> {
        self.publish(false, progress)
    }

    /// Like [`Self::finish`], with the graph built anew: nothing of deleted items is left.
    pub fn compact(&self, progress: &(dyn Fn(Progress) + Sync)) -> Result<Manifest> {
        self.publish(true, progress)
    }

    fn publish(&self, compact: bool, progress: &(dyn Fn(Progress) + Sync)) -> Result<Manifest> {
        let mut inner = self.inner();
        // Vectors twice, once in order of ids, and codes of at most half their size; links and records beside them.
        let bytes = inner.state.items * (self.config().dim.next_multiple_of(32) as u64 * 10 + 1024);
        space::check(&self.dir, bytes)?;
        self.store.sync()?;
        if let (Some(snapshot), false) = (&inner.snapshot, compact)
            && snapshot.manifest.sequence == inner.state.sequence
            && snapshot.manifest.config == *self.config()
        {
            return Ok((*snapshot.manifest).clone());
        }
        let manifest = match publish(&self.store, &self.dir, inner.snapshot.as_deref(), compact, progress) {
            // The last published state is damaged: what it was made from is not.
            Err(error) if error.is_rebuildable() && inner.snapshot.is_some() => {
                publish(&self.store, &self.dir, None, true, progress)?
            }
            done => done?,
        };
        let snapshot = Arc::new(Snapshot::open(&self.dir, Memory::Auto)?);
        if let Some(live) = &inner.live {
            live.swap(State { snapshot: snapshot.clone(), tail: Tail::default() });
        }
        inner.snapshot = Some(snapshot);
        Ok(manifest)
    }

    /// A reader that sees every write of this writer as soon as it is made, whole batches at a time. The index must
    /// have been finished once.
    pub fn reader(&self) -> Result<Index> {
        let mut inner = self.inner();
        let live = match &inner.live {
            Some(live) => live.clone(),
            None => {
                let snapshot = match &inner.snapshot {
                    Some(snapshot) => snapshot.clone(),
                    None => Arc::new(Snapshot::open(&self.dir, Memory::Auto)?),
                };
                let tail = self.tail_since(snapshot.manifest.sequence)?;
                let live = Arc::new(Live::new(State { snapshot, tail }));
                inner.live = Some(live.clone());
                live
            }
        };
        Ok(Index::from_live(&self.dir, live))
    }

    /// What the store holds beyond a published state.
    fn tail_since(&self, sequence: u64) -> Result<Tail> {
        let (mut items, mut vectors, mut gone) = (vec![], vec![], vec![]);
        for id in self.store.changed_since(sequence)? {
            match self.store.item(id)? {
                Some(item) if self.store.vector(id, &mut vectors)? => items.push(item),
                _ => gone.push(id),
            }
        }
        Ok(Tail::default().with(&gone, items, &vectors, self.config().dim))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn check_item(item: &NewItem) -> Result<()> {
    let bad = |what: &str| Err(IndexError::Item { key: item.key.clone(), what: what.into() });
    if item.key.is_empty() {
        return bad("its key is empty");
    }
    if item.key.len() > MAX_KEY_BYTES {
        return bad("its key is longer than 4096 bytes");
    }
    Ok(())
}

/// Takes the right to write. The lock goes with the file's handle, so a process that dies leaves none behind.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|e| IndexError::io(&path, e))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            // A process just forked by one that wrote holds its locks till it starts its own program.
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_WAIT / 20),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".into(),
                    id => format!("process {id}"),
                };
                return Err(IndexError::Locked { dir: dir.into(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(IndexError::io(&path, e)),
        }
    }
    // Only a help for the message above; the lock does not depend on it.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}
