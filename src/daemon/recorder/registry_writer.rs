//! Writes `session-registry.json`, which other programs read, within a second of each change.
//!
//! A small file is replaced as a whole. A large one has a slot for each session, with blanks after the record, and a change
//! is written into the slots of the sessions that changed: what a turn writes does not depend on how many sessions there are.
//! A slot does not cross a page boundary unless it is longer than a page, so that a kill cuts no record in two.
//! The file is a view of the records: one that a power failure damaged is set aside and written again by the next start.
//!
//! Owned by the snapshot writer.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::state::Session;
use crate::state::snapshot::{self, RegistryFile};
use crate::storage::Disk;

/// Up to this size, the file is replaced as a whole.
const MAX_WHOLE_BYTES: usize = 64 * 1024;
/// More sessions than these take more than [`MAX_WHOLE_BYTES`].
const MAX_WHOLE_SESSIONS: usize = 200;
/// The bytes before the first slot: the fields of the file, and blanks.
const HEAD_BYTES: usize = 512;
/// The blanks that a record has at least when its slot is made.
const MIN_SPARE_BYTES: usize = 256;
const PAGE_BYTES: usize = 4096;
/// The end of the file, after the last slot.
const TAIL: &[u8] = b"  ]\n}\n";

/// The state of the file on disk.
pub(super) struct RegistryWriter {
    disk: Disk,
    path: PathBuf,
    /// `None` when the next change replaces the file.
    slots: Option<Slots>,
}

/// A file with slots, as it was written last.
struct Slots {
    /// Opened once the file is in its place.
    file: Option<(File, Mark)>,
    slots: Vec<Slot>,
    /// Where the tail begins.
    end: usize,
}

/// The place of a session; one that was removed leaves an empty slot.
struct Slot {
    session: Option<Arc<Session>>,
    offset: usize,
    length: usize,
}

/// Inode, length and modification time: after a write by another program, one of them differs.
type Mark = (u64, u64, i64, i64);

fn mark(found: &fs::Metadata) -> Mark {
    (found.ino(), found.len(), found.mtime(), found.mtime_nsec())
}

impl RegistryWriter {
    pub(super) fn new(disk: Disk, path: PathBuf) -> Self {
        Self { disk, path, slots: None }
    }

    /// Writes the changes in place; `false` where that is not possible, and the caller is to replace the file with what
    /// [`RegistryWriter::write_whole`] writes.
    pub(super) fn write_changes(&mut self, registry: &RegistryFile) -> io::Result<bool> {
        if let Some(mut slots) = self.slots.take()
            && slots.is_in_place(&self.disk, &self.path)?
            && let Some(changes) = slots.change(&registry.sessions)?
        {
            slots.write(&self.disk, registry, changes)?;
            self.slots = Some(slots);
            return Ok(true);
        }
        if registry.sessions.len() > MAX_WHOLE_SESSIONS || snapshot::text(registry)?.len() > MAX_WHOLE_BYTES {
            self.slots = Some(Slots::of(registry)?);
        }
        Ok(false)
    }

    /// Writes all of the file, record by record: the text of ten thousand would be most of the daemon's memory.
    pub(super) fn write_whole(&self, registry: &RegistryFile, file: &mut dyn Write) -> io::Result<()> {
        match &self.slots {
            Some(slots) => slots.write_whole(registry, file),
            None => file.write_all(&snapshot::text(registry)?),
        }
    }

    /// Notes that the caller failed to replace the file.
    pub(super) fn failed(&mut self) {
        self.slots = None;
    }
}

/// The slots that differ from the file.
struct Changes {
    /// The indexes of the slots to write, in order.
    slots: Vec<usize>,
    /// Whether the tail moves.
    is_longer: bool,
}

impl Slots {
    /// A new file.
    fn of(registry: &RegistryFile) -> io::Result<Self> {
        let mut slots = Self { file: None, slots: Vec::new(), end: HEAD_BYTES };
        for session in &registry.sessions {
            slots.append(session)?;
        }
        Ok(slots)
    }

    fn write_whole(&self, registry: &RegistryFile, file: &mut dyn Write) -> io::Result<()> {
        file.write_all(&head(registry)?)?;
        let last = self.slots.len().saturating_sub(1);
        let mut text = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            text.clear();
            slot.render(index < last, &mut text)?;
            file.write_all(&text)?;
        }
        file.write_all(TAIL)
    }

    /// Whether the file is the one that was written last; opens it after it was replaced.
    fn is_in_place(&mut self, disk: &Disk, path: &Path) -> io::Result<bool> {
        let Ok(found) = fs::symlink_metadata(path) else { return Ok(false) };
        if let Some((_, mark_then)) = &self.file {
            return Ok(*mark_then == mark(&found));
        }
        let file = disk.open_write(path)?;
        let found = file.metadata()?;
        let is_whole = found.len() == (self.end + TAIL.len()) as u64;
        self.file = Some((file, mark(&found)));
        Ok(is_whole)
    }

    /// Adds a slot at the end, which is moved beyond a page boundary that the slot would cross.
    fn append(&mut self, session: &Arc<Session>) -> io::Result<()> {
        let length = (record(session)?.len() + MIN_SPARE_BYTES).next_multiple_of(64);
        let left_in_page = PAGE_BYTES - self.end % PAGE_BYTES;
        if length > left_in_page
            && left_in_page < PAGE_BYTES
            && let Some(before) = self.slots.last_mut()
        {
            before.length += left_in_page;
            self.end += left_in_page;
        }
        self.slots.push(Slot { session: Some(Arc::clone(session)), offset: self.end, length });
        self.end += length;
        Ok(())
    }

    /// Takes in the sessions; `None` when a record has outgrown its slot or most slots are empty.
    fn change(&mut self, sessions: &[Arc<Session>]) -> io::Result<Option<Changes>> {
        let last_before = self.slots.iter().rposition(|slot| slot.session.is_some());
        let count = self.slots.len();
        let mut changed = Vec::new();
        let mut rest = sessions.iter().peekable();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(known) = &slot.session else { continue };
            let same = rest.next_if(|session| session.session_id == known.session_id);
            if same.is_some_and(|session| Arc::ptr_eq(session, known)) {
                continue;
            }
            slot.session = same.cloned();
            changed.push(index);
        }
        for session in rest {
            // The one before may become longer.
            changed.extend(self.slots.len().checked_sub(1));
            changed.push(self.slots.len());
            self.append(session)?;
        }
        let last = self.slots.iter().rposition(|slot| slot.session.is_some());
        if last != last_before {
            // What was the last record gets a comma, and what is the last one now loses it.
            changed.extend([last_before, last].into_iter().flatten());
        }
        changed.sort_unstable();
        changed.dedup();
        for &index in &changed {
            let slot = &self.slots[index];
            if let Some(session) = &slot.session
                && record(session)?.len() + 2 > slot.length
            {
                return Ok(None);
            }
        }
        let filled = self.slots.iter().filter(|slot| slot.session.is_some()).count();
        let is_sparse = filled * 2 < self.slots.len();
        let is_longer = self.slots.len() > count;
        Ok((!is_sparse).then_some(Changes { slots: changed, is_longer }))
    }

    /// Writes neighbouring slots with one call, so that the file is valid JSON before and after it.
    fn write(&mut self, disk: &Disk, registry: &RegistryFile, changes: Changes) -> io::Result<()> {
        let Some((file, _)) = &self.file else { return Ok(()) };
        let last = self.slots.iter().rposition(|slot| slot.session.is_some()).unwrap_or_default();
        let neighbours =
            |a: &usize, b: &usize| self.slots[a + 1..*b].iter().all(|slot| slot.session.is_none());
        for run in changes.slots.chunk_by(neighbours) {
            let (Some(&from), Some(&to)) = (run.first(), run.last()) else { continue };
            let mut text = Vec::new();
            for (index, slot) in self.slots.iter().enumerate().take(to + 1).skip(from) {
                slot.render(index < last, &mut text)?;
            }
            if changes.is_longer && to + 1 == self.slots.len() {
                text.extend_from_slice(TAIL);
            }
            disk.write_all_at(file, &text, self.slots[from].offset as u64)?;
        }
        disk.write_all_at(file, &head(registry)?, 0)?;
        let written = mark(&file.metadata()?);
        if let Some((_, mark)) = &mut self.file {
            *mark = written;
        }
        Ok(())
    }
}

impl Slot {
    fn render(&self, has_next: bool, text: &mut Vec<u8>) -> io::Result<()> {
        let end = text.len() + self.length - 1;
        if let Some(session) = &self.session {
            text.extend_from_slice(&record(session)?);
            if has_next {
                text.push(b',');
            }
        }
        text.resize(end, b' ');
        text.push(b'\n');
        Ok(())
    }
}

/// The fields before the sessions, indented like [`snapshot::text`].
fn head(registry: &RegistryFile) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(HEAD_BYTES);
    let empty = RegistryFile { sessions: Vec::new(), updated_at: registry.updated_at.clone(), ..*registry };
    text.write_all(&snapshot::text(&empty)?)?;
    text.truncate(text.len() - b"]\n}\n".len());
    text.resize(HEAD_BYTES - 1, b' ');
    text.push(b'\n');
    Ok(text)
}

/// A record, indented like [`snapshot::text`].
fn record(session: &Session) -> io::Result<Vec<u8>> {
    let text = snapshot::session_text(session)?;
    let mut indented = Vec::with_capacity(text.len() + text.len() / 4);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        indented.extend_from_slice(b"    ");
        indented.extend_from_slice(line);
    }
    indented.pop();
    Ok(indented)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::daemon::tests::new_session;

    /// A change of the sessions before the next round.
    #[derive(Debug, Clone)]
    enum Change {
        /// With a label of this length.
        Add(usize),
        Remove(prop::sample::Index),
        /// The same.
        Label(prop::sample::Index, usize),
        /// Another program changes the file.
        Foreign,
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let index = any::<prop::sample::Index>;
        let label = || prop_oneof![8 => 0..200usize, 1 => 200..9000usize];
        let change = prop_oneof![
            3 => label().prop_map(Change::Add),
            2 => index().prop_map(Change::Remove),
            6 => (index(), label()).prop_map(|(index, length)| Change::Label(index, length)),
            1 => Just(Change::Foreign),
        ];
        prop::collection::vec(change, 1..60)
    }

    fn labelled(name: &str, length: usize) -> Arc<Session> {
        let mut session = new_session(name);
        session.metadata = std::sync::Arc::new([("label".to_owned(), "é\n".repeat(length / 2))].into());
        Arc::new(session)
    }

    fn replace(disk: &Disk, path: &Path, writer: &RegistryWriter, registry: &RegistryFile) {
        disk.replace_all(&[(path, Box::new(|file| writer.write_whole(registry, file)))]).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn file_has_the_sessions_after_any_changes(rounds in prop::collection::vec(changes(), 1..12)) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("registry.json");
            let disk = Disk::default();
            let mut writer = RegistryWriter::new(disk.clone(), path.clone());
            let mut sessions: Vec<_> =
                (0..100).map(|number| labelled(&format!("s{number}"), 300)).collect();
            for (round, changes) in rounds.into_iter().enumerate() {
                for (number, change) in changes.into_iter().enumerate() {
                    match change {
                        Change::Add(length) => sessions.push(labelled(&format!("s{round}-{number}"), length)),
                        Change::Remove(_) | Change::Label(..) if sessions.is_empty() => {}
                        Change::Remove(index) => drop(sessions.remove(index.index(sessions.len()))),
                        Change::Label(index, length) => {
                            let index = index.index(sessions.len());
                            sessions[index] = labelled(sessions[index].session_id.clone().as_str(), length);
                        }
                        Change::Foreign => drop(fs::write(&path, "{}")),
                    }
                }
                let registry = RegistryFile {
                    format_version: 4,
                    through_seq: round as u64,
                    synced_through: None,
                    updated_at: Some("2026-01-02T03:04:05.678Z".into()),
                    sessions: sessions.clone(),
                };
                if !writer.write_changes(&registry).unwrap() {
                    replace(&disk, &path, &writer, &registry);
                }
                let found: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                prop_assert_eq!(found, serde_json::to_value(&registry).unwrap());
            }
        }
    }

    #[test]
    fn change_writes_the_slot_of_its_session_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.json");
        let disk = Disk::default();
        let mut writer = RegistryWriter::new(disk.clone(), path.clone());
        let mut registry = RegistryFile {
            format_version: 4,
            through_seq: 0,
            synced_through: None,
            updated_at: None,
            sessions: (0..1000).map(|number| labelled(&format!("s{number}"), 0)).collect(),
        };
        assert!(!writer.write_changes(&registry).unwrap());
        replace(&disk, &path, &writer, &registry);
        let before = fs::read(&path).unwrap();
        let mut session = new_session("s500");
        session.last_turn_id = Some("t".repeat(40).as_str().into());
        registry.sessions[500] = Arc::new(session);
        assert!(writer.write_changes(&registry).unwrap());
        let after = fs::read(&path).unwrap();
        assert_eq!(before.len(), after.len());
        let differs: Vec<_> = (0..before.len()).filter(|&at| before[at] != after[at]).collect();
        let (first, last) = (differs[0], differs[differs.len() - 1]);
        assert!(first > HEAD_BYTES && first / PAGE_BYTES == last / PAGE_BYTES, "{first} to {last}");
    }
}
