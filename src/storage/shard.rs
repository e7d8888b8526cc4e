//! The directory of one shard.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::durable::{Temporary, create_directory, links_unsupported, sync_directory};
use super::name::check_component;
use super::{FileName, StorageError};

/// Where savepoints are.
const SAVEPOINTS: &str = "savepoints";
/// How the directory of a savepoint ends while it is made.
const UNFINISHED: &str = ".tmp";
/// After this time nobody is making it any more.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// The files of one shard. Calls block, and may come from several threads at once.
#[derive(Clone, Debug)]
pub struct ShardStorage {
    directory: PathBuf,
}

impl ShardStorage {
    /// Opens the shard's directory below `root`, and creates what is missing.
    pub fn open(
        root: &Path,
        namespace: &str,
        pipeline: &str,
        shard: u32,
    ) -> Result<ShardStorage, StorageError> {
        let mut directory = root.to_owned();
        create_directory(&directory)?;
        for component in [namespace, pipeline, &shard.to_string()] {
            check_component(component).map_err(|what| StorageError::name(component, what))?;
            let parent = directory.clone();
            directory.push(component);
            create_directory(&directory)?;
            // An earlier process may have died between creating the directory and making its entry durable.
            sync_directory(&parent)?;
        }
        for child in ["snapshots", "cold"] {
            create_directory(&directory.join(child))?;
        }
        sync_directory(&directory)?;
        Ok(ShardStorage { directory })
    }

    /// The shard's directory as it is, to be looked at; `None` if there is none. Nothing is created.
    pub fn existing(
        root: &Path,
        namespace: &str,
        pipeline: &str,
        shard: u32,
    ) -> Result<Option<ShardStorage>, StorageError> {
        let mut directory = root.to_owned();
        for component in [namespace, pipeline, &shard.to_string()] {
            check_component(component).map_err(|what| StorageError::name(component, what))?;
            directory.push(component);
        }
        Ok(directory.is_dir().then_some(ShardStorage { directory }))
    }

    /// The path of a file, for messages.
    pub fn path(&self, name: &FileName) -> PathBuf {
        self.directory.join(name.as_str())
    }

    /// All files but those of savepoints, ascending by name. Files whose names are not of our making are left out, so that nobody removes them.
    pub fn list(&self) -> Result<Vec<FileName>, StorageError> {
        let mut names = Vec::new();
        let mut pending = vec![String::new()];
        while let Some(prefix) = pending.pop() {
            let directory = self.directory.join(&prefix);
            let failed = |error| StorageError::io(&directory, error);
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                // Another instance may tidy up at the same time.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !prefix.is_empty() => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let Ok(name) = FileName::parse(&format!("{prefix}{}", entry.file_name().to_string_lossy()))
                else {
                    continue;
                };
                let kind = entry.file_type().map_err(failed)?;
                if name.as_str() == SAVEPOINTS {
                    // Theirs are nobody's to tidy up.
                } else if kind.is_dir() {
                    pending.push(format!("{name}/"));
                } else if kind.is_file() {
                    names.push(name);
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// The savepoint of this name, a directory like this one; whether there is one shows when it is read.
    pub fn savepoint(&self, name: &str) -> Result<ShardStorage, StorageError> {
        check_savepoint_name(name)?;
        Ok(ShardStorage { directory: self.directory.join(SAVEPOINTS).join(name) })
    }

    /// The names of all savepoints, ascending.
    pub fn savepoints(&self) -> Result<Vec<String>, StorageError> {
        let directory = self.directory.join(SAVEPOINTS);
        let failed = |error| StorageError::io(&directory, error);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(failed(error)),
        };
        let mut names = vec![];
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            names.extend(check_savepoint_name(&name).is_ok().then_some(name));
        }
        names.sort();
        Ok(names)
    }

    /// Makes a savepoint: `fill` gets an empty directory, which then appears under the name, whole or not at all.
    ///
    /// # Errors
    /// [`StorageErrorKind::Exists`](super::StorageErrorKind::Exists) if there is a savepoint of that name.
    pub fn create_savepoint<E: From<StorageError>>(
        &self,
        name: &str,
        fill: impl FnOnce(&ShardStorage) -> Result<(), E>,
    ) -> Result<(), E> {
        let target = self.savepoint(name)?.directory;
        let parent = self.directory.join(SAVEPOINTS);
        let directory = parent.join(format!("{name}.{:016x}{UNFINISHED}", rand::random::<u64>()));
        create_directory(&directory)?;
        remove_abandoned(&parent);
        let draft = ShardStorage { directory };
        let published = fill(&draft).and_then(|()| {
            // Renaming a directory over another works only where that is empty.
            fs::rename(&draft.directory, &target).map_err(|error| {
                let error = if target.exists() { io::ErrorKind::AlreadyExists.into() } else { error };
                StorageError::io(&target, error)
            })?;
            Ok(sync_directory(&parent)?)
        });
        if published.is_err() {
            // A crash leaves it behind, until another savepoint is made: it has no name that a savepoint could have.
            let _ = fs::remove_dir_all(&draft.directory);
        }
        published
    }

    /// Writes a new file. Returns what `write` returned, and the file's length in bytes.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Exists`](super::StorageErrorKind::Exists) if the name is taken. On any failure before the file has
    /// its name, nothing stays behind.
    pub fn create<T>(
        &self,
        name: &FileName,
        write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    ) -> Result<(T, u64), StorageError> {
        let (target, parent) = self.target(name)?;
        let failed = |error| StorageError::io(&target, error);
        let temporary = Temporary::beside(&target)?;
        let result = temporary.fill(write).map_err(failed)?;
        temporary.publish_new(&target).map_err(failed)?;
        sync_directory(&parent)?;
        Ok(result)
    }

    /// Stores files that exist elsewhere, whose content is durable there and does not change any more: by hard links, or by
    /// copies where the file system has none. A file that is there already with the same length was stored by an earlier try,
    /// and stays.
    pub fn link_in(&self, files: &[(&Path, &FileName)]) -> Result<(), StorageError> {
        let mut directories = BTreeSet::new();
        for (source, name) in files {
            let (target, parent) = self.target(name)?;
            directories.insert(parent);
            match fs::hard_link(source, &target) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if length_of(source)? != length_of(&target)? {
                        return Err(StorageError::io(target, error));
                    }
                }
                Err(error) if links_unsupported(&error) => {
                    let mut from = File::open(source).map_err(|error| StorageError::io(*source, error))?;
                    self.create(name, |out| io::copy(&mut from, out))?;
                }
                Err(error) => return Err(StorageError::io(*source, error)),
            }
        }
        directories.iter().try_for_each(|directory| sync_directory(directory))
    }

    /// Makes a stored file appear at `path`, by a hard link or a copy. Not durable: working directories need not be. What is
    /// there must not be written to.
    pub fn link_out(&self, name: &FileName, path: &Path) -> Result<(), StorageError> {
        let source = self.path(name);
        match fs::hard_link(&source, path) {
            Ok(()) => Ok(()),
            Err(error) if links_unsupported(&error) => {
                fs::copy(&source, path).map(drop).map_err(|error| StorageError::io(source, error))
            }
            Err(error) => Err(StorageError::io(source, error)),
        }
    }

    /// The whole content.
    pub fn read(&self, name: &FileName) -> Result<Vec<u8>, StorageError> {
        let path = self.path(name);
        fs::read(&path).map_err(|error| StorageError::io(path, error))
    }

    /// Opens a file for reading.
    pub fn open_file(&self, name: &FileName) -> Result<File, StorageError> {
        let path = self.path(name);
        File::open(&path).map_err(|error| StorageError::io(path, error))
    }

    /// The length in bytes; `None` if there is no such file.
    pub fn length(&self, name: &FileName) -> Result<Option<u64>, StorageError> {
        let path = self.path(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Err(StorageError::damaged(path, "is not a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::io(path, error)),
        }
    }

    /// Removes a file; one that is gone already is fine. The directory of an incarnation goes with its last file. Not made
    /// durable: a file that comes back after a loss of power is an orphan, which the next start drops.
    pub fn remove(&self, name: &FileName) -> Result<(), StorageError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::io(path, error));
            }
            _ => {}
        }
        if let Some(directory) = name.incarnation() {
            // It fails while there are other files, which is as it should be.
            let _ = fs::remove_dir(self.directory.join(directory));
        }
        Ok(())
    }

    /// Replaces a file's content atomically: a reader sees the old content or the new one. For `confirmed` and the history.
    pub fn replace(&self, name: &FileName, content: &[u8]) -> Result<(), StorageError> {
        let (target, parent) = self.target(name)?;
        let failed = |error| StorageError::io(&target, error);
        let temporary = Temporary::beside(&target)?;
        temporary.fill(|out| out.write_all(content)).map_err(failed)?;
        temporary.publish_over(&target).map_err(failed)?;
        sync_directory(&parent)
    }

    /// Adds to a file's end. Neither durable nor atomic: for what only people read.
    pub fn append(&self, name: &FileName, content: &[u8]) -> Result<(), StorageError> {
        let (target, _) = self.target(name)?;
        let opened = OpenOptions::new().append(true).create(true).open(&target);
        opened.and_then(|mut file| file.write_all(content)).map_err(|error| StorageError::io(&target, error))
    }

    /// The path of a file to be written and of its directory, which exists afterwards.
    fn target(&self, name: &FileName) -> Result<(PathBuf, PathBuf), StorageError> {
        let target = self.path(name);
        let parent = target.parent().unwrap_or(&self.directory).to_owned();
        create_directory(&parent)?;
        Ok((target, parent))
    }
}

/// Removes what crashes have left of savepoints that were being made. Nobody works on one for so long; who cannot remove it leaves it.
fn remove_abandoned(savepoints: &Path) {
    let is_old = |path: &Path| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED))
    };
    for entry in fs::read_dir(savepoints).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.to_string_lossy().ends_with(UNFINISHED) && is_old(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Refuses what cannot be the name of a savepoint.
pub fn check_savepoint_name(name: &str) -> Result<(), StorageError> {
    check_component(name).map_err(|what| StorageError::name(name, what))?;
    match name.ends_with(UNFINISHED) {
        true => Err(StorageError::name(name, "a savepoint's name does not end in `.tmp`")),
        false => Ok(()),
    }
}

fn length_of(path: &Path) -> Result<u64, StorageError> {
    fs::metadata(path).map(|metadata| metadata.len()).map_err(|error| StorageError::io(path, error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::SystemTime;

    use super::*;
    use crate::storage::StorageErrorKind;

    fn open() -> (tempfile::TempDir, ShardStorage) {
        let root = tempfile::tempdir().unwrap();
        let storage = ShardStorage::open(&root.path().join("a/b"), "onceflow", "orders", 0).unwrap();
        (root, storage)
    }

    fn names(storage: &ShardStorage) -> Vec<String> {
        storage.list().unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn files_appear_whole_and_are_listed() {
        let (root, storage) = open();
        assert_eq!(names(&storage), Vec::<String>::new());
        let name = FileName::snapshot(7, "5f1c").unwrap();
        let (value, length) = storage
            .create(&name, |out| {
                out.write_all(b"some ")?;
                // Before the end there is no file under the name.
                assert_eq!(storage.length(&name).unwrap(), None);
                out.write_all(b"rows")?;
                Ok(42)
            })
            .unwrap();
        assert_eq!((value, length), (42, 9));
        storage.replace(&FileName::confirmed(), b"{}").unwrap();
        assert_eq!(names(&storage), ["confirmed", "snapshots/00000000000000000007-5f1c.snapshot"]);
        assert_eq!(storage.read(&name).unwrap(), b"some rows");
        assert_eq!(storage.length(&name).unwrap(), Some(9));
        let expected = root.path().join("a/b/onceflow/orders/0/snapshots/00000000000000000007-5f1c.snapshot");
        assert_eq!(storage.path(&name), expected);
        assert_eq!(io::read_to_string(storage.open_file(&name).unwrap()).unwrap(), "some rows");
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let (_root, storage) = open();
        let name = FileName::snapshot(1, "a").unwrap();
        let error = storage
            .create(&name, |out| {
                out.write_all(b"half")?;
                Err::<(), _>(io::ErrorKind::StorageFull.into())
            })
            .unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Full);
        assert!(error.to_string().contains("00000000000000000001-a.snapshot: "), "{error}");
        assert_eq!(names(&storage), Vec::<String>::new());
        // The same name can be tried again.
        storage.create(&name, |out| out.write_all(b"whole")).unwrap();
        assert_eq!(storage.read(&name).unwrap(), b"whole");
    }

    #[test]
    fn nothing_is_overwritten() {
        let (_root, storage) = open();
        let name = FileName::snapshot(1, "a").unwrap();
        storage.create(&name, |out| out.write_all(b"first")).unwrap();
        let error = storage.create(&name, |out| out.write_all(b"second")).unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Exists);
        assert_eq!(storage.read(&name).unwrap(), b"first");
        assert_eq!(names(&storage), [name.as_str()], "no temporary file stays");
    }

    #[test]
    fn replacing_keeps_one_whole_file_under_concurrent_readers() {
        let (_root, storage) = open();
        let name = FileName::confirmed();
        let content = |n: u8| vec![n; 1000 + usize::from(n)];
        storage.replace(&name, &content(0)).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut newest = 0;
                while newest < 50 {
                    let read = storage.read(&name).unwrap();
                    assert_eq!(read, content(read[0]));
                    assert!(read[0] >= newest);
                    newest = read[0];
                }
            });
            for n in 1..=50 {
                storage.replace(&name, &content(n)).unwrap();
            }
            reader.join().unwrap();
        });
        assert_eq!(names(&storage), ["confirmed"]);
    }

    #[test]
    fn links_share_the_file_and_may_be_repeated() {
        let (root, storage) = open();
        let source = root.path().join("000012.sst");
        fs::write(&source, b"table").unwrap();
        let name = FileName::cold("9a7e", "000012.sst").unwrap();
        storage.link_in(&[(&source, &name)]).unwrap();
        storage.link_in(&[(&source, &name)]).unwrap();
        assert_eq!(fs::metadata(&source).unwrap().ino(), fs::metadata(storage.path(&name)).unwrap().ino());
        fs::remove_file(&source).unwrap();
        let back = root.path().join("back.sst");
        storage.link_out(&name, &back).unwrap();
        assert_eq!(fs::read(&back).unwrap(), b"table");

        let other = root.path().join("other.sst");
        fs::write(&other, b"another table").unwrap();
        let error = storage.link_in(&[(&other, &name)]).unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Exists);
        assert_eq!(storage.read(&name).unwrap(), b"table");
    }

    #[test]
    fn files_are_copied_between_file_systems() {
        // /dev/shm is a file system of its own on Linux; without one there is nothing to test.
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
        let (root, storage) = open();
        if fs::metadata(elsewhere.path()).unwrap().dev() == fs::metadata(root.path()).unwrap().dev() {
            return;
        }
        let source = elsewhere.path().join("000012.sst");
        fs::write(&source, b"table").unwrap();
        let name = FileName::cold("9a7e", "000012.sst").unwrap();
        storage.link_in(&[(&source, &name)]).unwrap();
        storage.link_in(&[(&source, &name)]).unwrap();
        assert_eq!(names(&storage), ["cold/9a7e/000012.sst"]);
        fs::remove_file(&source).unwrap();
        storage.link_out(&name, &source).unwrap();
        assert_eq!(fs::read(&source).unwrap(), b"table");
    }

    #[test]
    fn missing_files_are_named() {
        let (root, storage) = open();
        let name = FileName::cold("9a7e", "000012.sst").unwrap();
        for error in [
            storage.read(&name).unwrap_err(),
            storage.open_file(&name).map(drop).unwrap_err(),
            storage.link_out(&name, &root.path().join("x")).unwrap_err(),
        ] {
            assert_eq!(error.kind(), StorageErrorKind::Missing);
            assert_eq!(error.path(), storage.path(&name));
        }
        let gone = root.path().join("gone.sst");
        let error = storage.link_in(&[(&gone, &name)]).unwrap_err();
        assert_eq!((error.kind(), error.path()), (StorageErrorKind::Missing, gone.as_path()));
    }

    #[test]
    fn removing_is_repeatable_and_tidies_incarnations() {
        let (root, storage) = open();
        let source = root.path().join("t.sst");
        fs::write(&source, b"table").unwrap();
        let files = [("one", "a.sst"), ("one", "b.sst"), ("two", "a.sst")];
        let files = files.map(|(incarnation, file)| FileName::cold(incarnation, file).unwrap());
        for name in &files {
            storage.link_in(&[(&source, name)]).unwrap();
        }
        storage.remove(&files[0]).unwrap();
        storage.remove(&files[0]).unwrap();
        assert_eq!(names(&storage), ["cold/one/b.sst", "cold/two/a.sst"]);
        storage.remove(&files[1]).unwrap();
        let cold: Vec<_> =
            fs::read_dir(storage.directory.join("cold")).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(cold, ["two"]);
        // A directory that was removed comes back with the next file, and the others never go.
        storage.link_in(&[(&source, &files[0])]).unwrap();
        storage.remove(&FileName::snapshot(1, "a").unwrap()).unwrap();
        assert!(storage.directory.join("snapshots").exists());
    }

    #[test]
    fn leftovers_are_listed_and_strangers_are_not() {
        let (_root, storage) = open();
        let name = FileName::snapshot(3, "a").unwrap();
        storage.create(&name, |out| out.write_all(b"x")).unwrap();
        let leftover = format!("{name}.0123456789abcdef.tmp");
        fs::write(storage.directory.join(&leftover), b"half").unwrap();
        fs::write(storage.directory.join("notes of mine.txt"), b"keep").unwrap();
        symlink("/etc/hostname", storage.directory.join("link")).unwrap();
        assert_eq!(names(&storage), [name.as_str(), &leftover]);
        // Dropping a leftover is the same call as for any orphan.
        storage.remove(&FileName::parse(&leftover).unwrap()).unwrap();
        assert_eq!(names(&storage), [name.as_str()]);
    }

    #[test]
    fn savepoints_appear_whole_and_apart() {
        let (_root, storage) = open();
        let file = FileName::parse("savepoint.json").unwrap();
        let write = |content: &'static [u8]| {
            let file = file.clone();
            move |draft: &ShardStorage| draft.create(&file, |out| out.write_all(content)).map(drop)
        };
        assert_eq!(storage.savepoints().unwrap(), Vec::<String>::new());
        let failed = storage.create_savepoint("early", |draft| {
            write(b"half")(draft)?;
            assert_eq!(storage.savepoints().unwrap(), Vec::<String>::new());
            Err(StorageError::damaged("elsewhere", "full"))
        });
        assert_eq!(failed.unwrap_err().kind(), StorageErrorKind::Damaged);
        storage.create_savepoint("late", write(b"whole")).unwrap();
        let again = storage.create_savepoint("late", write(b"other")).unwrap_err();
        assert_eq!(again.kind(), StorageErrorKind::Exists);
        assert_eq!(storage.savepoints().unwrap(), ["late"]);
        assert_eq!(storage.savepoint("late").unwrap().read(&file).unwrap(), b"whole");
        assert_eq!(names(&storage), Vec::<String>::new(), "no orphan is looked for among them");
        // What a crash left goes with the next one, unless somebody may still be at it.
        let savepoints = storage.directory.join(SAVEPOINTS);
        let [left, busy] = ["left.1.tmp", "busy.2.tmp"].map(|name| savepoints.join(name));
        for draft in [&left, &busy] {
            fs::create_dir(draft).unwrap();
            fs::write(draft.join("file"), "half").unwrap();
        }
        File::open(&left).unwrap().set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        storage.create_savepoint("next", write(b"whole")).unwrap();
        assert_eq!((left.exists(), busy.exists()), (false, true));
        for name in ["", "..", "a/b", "x.tmp", "a b"] {
            assert_eq!(storage.savepoint(name).unwrap_err().kind(), StorageErrorKind::Name, "{name}");
        }
        let there = fs::read_dir(savepoints).unwrap().map(|entry| entry.unwrap().file_name());
        let expected = ["busy.2.tmp", "late", "next"].map(Into::into);
        assert_eq!(there.collect::<BTreeSet<_>>(), expected.into(), "what failed has tidied up");
    }

    #[test]
    fn a_shard_stays_in_its_directory() {
        let root = tempfile::tempdir().unwrap();
        for (namespace, pipeline) in [("..", "p"), ("n", "../../p"), ("n", ""), (".n", "p")] {
            let error = ShardStorage::open(root.path(), namespace, pipeline, 0).unwrap_err();
            assert_eq!(error.kind(), StorageErrorKind::Name);
        }
        let one = ShardStorage::open(root.path(), "n", "p", 0).unwrap();
        let other = ShardStorage::open(root.path(), "n", "p", 1).unwrap();
        one.replace(&FileName::confirmed(), b"0").unwrap();
        assert_eq!(names(&other), Vec::<String>::new());
        assert_eq!(names(&ShardStorage::open(root.path(), "n", "p", 0).unwrap()), ["confirmed"]);
    }
}
