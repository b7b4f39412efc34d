//! Whether a store holds what is published: a store that lost items must not be published, which would delete them.

use std::fs;
use std::path::Path;

use crate::error::{IndexError, Result};
use crate::segment::block_file;
use crate::segment::item_table::ItemTable;
use crate::segment::manifest::FileRole;
use crate::segment::publish::is_published_file;
use crate::segment::snapshot::Snapshot;
use crate::store::{self, Store};

/// Up to so many published items are all looked for in the store.
const ALL: usize = 4096;
/// Of more, so many spread over all: each takes reading a page of the store, which opening a large one must not do for many.
const SAMPLE: usize = 256;

/// Refuses a store that is older than the published files, or lost items that they hold.
pub(super) fn check_store(
    dir: &Path,
    store: &Store,
    state: &store::State,
    snapshot: &Snapshot,
) -> Result<()> {
    let published = snapshot.manifest.sequence;
    if published > state.sequence {
        return Err(IndexError::StoreOlder { dir: dir.into(), stored: state.sequence, published });
    }
    // What the store forgot the changes of was published later than these files.
    if store.forgotten()? > published {
        return Ok(());
    }
    let changed = store.changed_since(published)?;
    let live = snapshot.segments.iter().map(|segment| segment.live() as usize).sum::<usize>();
    let step = if live <= ALL { 1 } else { live.div_ceil(SAMPLE) };
    let (mut at, mut checked, mut missing) = (0, 0, 0);
    for segment in &snapshot.segments {
        let rows = (0..).zip(segment.reader.items().ids());
        for (row, &id) in rows.filter(|(row, _)| !segment.deleted.contains(*row)) {
            at += 1;
            if (at - 1) % step != 0 || changed.binary_search(&id).is_ok() {
                continue;
            }
            checked += 1;
            let key = segment.reader.items().item(row).ok().map(|item| item.key);
            missing += u64::from(!store.holds(id, key.as_deref())?);
        }
    }
    match missing {
        0 => Ok(()),
        _ => Err(IndexError::StoreIncomplete { dir: dir.into(), checked, missing }),
    }
}

/// The same where the manifest cannot be read: the tables of items that lie in the folder tell which ids were published.
pub(super) fn check_unknown(dir: &Path, state: &store::State) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|e| IndexError::io(dir, e))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("items-") || !is_published_file(&name) {
            continue;
        }
        // What is damaged itself tells nothing.
        let table =
            block_file::described(&entry.path(), FileRole::Items).and_then(|e| ItemTable::open(dir, &e));
        let Ok(table) = table else { continue };
        if table.ids().last().is_some_and(|last| *last >= state.next_id) {
            let missing = table.ids().iter().filter(|id| **id >= state.next_id).count() as u64;
            let checked = table.len() as u64;
            return Err(IndexError::StoreIncomplete { dir: dir.into(), checked, missing });
        }
    }
    Ok(())
}
