//! Changing the attributes of an index without touching its vectors.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::IndexWriter;
use crate::config::IndexConfig;
use crate::error::Result;
use crate::segment::state::State;

impl IndexWriter {
    /// Replaces the index's attributes, durably. Only the configuration in the store and the manifest are written, whatever
    /// the index holds; the published files stay. Readers of this writer see the change at once, other processes when they
    /// next refresh. Writes that are not published yet stay unpublished.
    ///
    /// # Errors
    /// Failures of the store and of the disk. Repeating the call completes it.
    pub fn set_attributes(&mut self, attributes: BTreeMap<String, String>) -> Result<()> {
        self.reopen_failed(&mut self.inner())?;
        let config = IndexConfig { attributes, ..self.config.clone() };
        self.store.write().unwrap_or_else(PoisonError::into_inner).set_config(config.clone())?;
        self.config = config;
        let mut publishing = self.publishing();
        // An index that was never published takes the attributes from the store when it is, and so does one whose damaged
        // segments are made again then.
        let published = {
            let inner = self.inner();
            inner.snapshot.clone().filter(|_| !inner.damaged)
        };
        let Some(published) = published else { return Ok(()) };
        let mut edition = self.edition(published.manifest.sequence);
        let segments = published.segments.iter().map(|s| (s.reader.clone(), s.deleted.clone()));
        edition.keep(&published.manifest, segments);
        let prepared = edition.prepare(Some(&published))?;
        self.put(&mut publishing, prepared, |inner, snapshot| {
            inner.recent.as_ref().map(|recent| State::of(snapshot, recent.delta.clone()))
        })?;
        self.settle(&mut publishing).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use crate::Index;
    use crate::IndexConfig;
    use crate::IndexWriter;
    use crate::NewItem;

    #[test]
    fn attributes_change_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = IndexConfig::new(2, "m");
        config.attributes.insert("root".into(), "a".into());
        let mut writer = IndexWriter::create(dir.path(), &config).unwrap();
        writer.upsert(&[NewItem::new("x")], &[0.6, 0.8]).unwrap();
        let files = writer.finish(&|_| {}).unwrap().segments;
        let reader = writer.reader().unwrap();
        let elsewhere = Index::open(dir.path()).unwrap();
        writer.upsert(&[NewItem::new("y")], &[0.8, 0.6]).unwrap();
        writer.set_attributes([("root".to_owned(), "b".to_owned())].into()).unwrap();
        assert_eq!(reader.manifest().config.attributes["root"], "b");
        assert_eq!(reader.len(), 2, "what is not published yet is still there");
        assert!(elsewhere.refresh().unwrap());
        assert_eq!((elsewhere.manifest().config.attributes["root"].as_str(), elsewhere.len()), ("b", 1));
        assert_eq!(elsewhere.manifest().segments, files, "no file was written again");
        drop(writer);
        let writer = IndexWriter::open(dir.path()).unwrap();
        assert_eq!(writer.config().attributes["root"], "b");
        assert_eq!(writer.finish(&|_| {}).unwrap().items, 2);
        assert_eq!(Index::open(dir.path()).unwrap().manifest().config.attributes["root"], "b");
        assert!(crate::verify(dir.path(), &|_| {}).is_ok());
    }

    #[test]
    fn an_unpublished_index_publishes_its_new_attributes() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = IndexWriter::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        writer.upsert(&[NewItem::new("x")], &[0.6, 0.8]).unwrap();
        writer.set_attributes([("root".to_owned(), "b".to_owned())].into()).unwrap();
        assert_eq!(writer.finish(&|_| {}).unwrap().config.attributes["root"], "b");
    }
}
