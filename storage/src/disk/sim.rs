//! A disk in memory that can lose its power, tear, fill up, fail and rot: the ground of every crash test.
//!
//! Owner: the test; clones and files share one state.
//! Always: two disks of one seed that are asked the same do the same.
//! What a power cut leaves ([`SimDisk::after_power_cut`]): of each 512-byte sector one of the states that
//! it had since the last sync of its file, chosen sector by sector; of the names in a folder the state at
//! the folder's last sync, with any of the later changes; of a file's length any it had since its last sync.
//! What a kill leaves ([`SimDisk::after_kill`]): everything that was handed over.
//! Not here: time. A call is done when it returns.
//! Read next: `sim/inode.rs` for what becomes of bytes, `sim/names.rs` for what becomes of names.

mod inode;
mod names;
#[cfg(test)]
mod tests;

pub use inode::SECTOR_BYTES;

use super::{Disk, DiskFile, check_path, folder_of};
use inode::{Change, Inode, SharedInode, next_random};
use names::{Copies, NameChange, Names};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::io;
use std::rc::Rc;

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// [`Disk::create`] and [`Disk::create_dir`].
    Create,
    /// [`DiskFile::read_at`].
    Read,
    /// [`DiskFile::write_at`] and [`DiskFile::truncate`].
    Write,
    /// [`DiskFile::sync`] and [`Disk::sync_dir`].
    Sync,
    /// [`Disk::link`].
    Link,
    /// [`Disk::rename`] and [`Disk::remove`].
    Rename,
}

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// That call alone fails.
    Once,
    /// That call and every later one of its kind fail.
    FromThenOn,
}

/// The simulated disk. Its futures are ready at once.
#[derive(Clone, Debug)]
pub struct SimDisk(Rc<RefCell<State>>);

/// An open file of a [`SimDisk`]; it outlives its name.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    file: SharedInode,
}

#[derive(Debug)]
struct State {
    random: u64,
    names: Names,
    synced_names: Names,
    name_changes: Vec<NameChange>,
    operations: u64,
    syncs: u64,
    cut_at_operation: Option<u64>,
    cut_at_sync: Option<u64>,
    cut: bool,
    capacity_bytes: Option<u64>,
    calls: BTreeMap<Call, u64>,
    faults: Vec<Fault>,
}

#[derive(Clone, Debug)]
struct Fault {
    call: Call,
    nth: u64,
    times: Times,
    kind: io::ErrorKind,
}

impl SimDisk {
    /// An empty disk, without a fault and without an end.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::holding(seed, Names::default())
    }

    /// An empty disk whose power goes at operation `n` (counted from 0; reading is none).
    pub fn cutting_at(seed: u64, n: u64) -> SimDisk {
        let disk = SimDisk::new(seed);
        disk.cut_at(n);
        disk
    }

    fn holding(seed: u64, names: Names) -> SimDisk {
        SimDisk(Rc::new(RefCell::new(State {
            random: seed,
            synced_names: names.clone(),
            names,
            name_changes: Vec::new(),
            operations: 0,
            syncs: 0,
            cut_at_operation: None,
            cut_at_sync: None,
            cut: false,
            capacity_bytes: None,
            calls: BTreeMap::new(),
            faults: Vec::new(),
        })))
    }

    /// The power goes at operation `n` (counted from 0): it may be done or not, all later ones fail.
    pub fn cut_at(&self, n: u64) {
        self.0.borrow_mut().cut_at_operation = Some(n);
    }

    /// The power goes at sync `n` (counted from 0, of files and folders alike), which is not done.
    pub fn cut_at_sync(&self, n: u64) {
        self.0.borrow_mut().cut_at_sync = Some(n);
    }

    /// The power goes now.
    pub fn cut_now(&self) {
        self.0.borrow_mut().cut = true;
    }

    /// Whether the power is gone.
    pub fn is_cut(&self) -> bool {
        self.0.borrow().cut
    }

    /// What fits on the disk, in bytes of all files; `None`: everything. What does not fit fails with
    /// [`io::ErrorKind::StorageFull`] after the part that did.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.borrow_mut().capacity_bytes = bytes;
    }

    /// Call `nth` of its kind (counted from 0, since the disk was made) fails and does nothing.
    pub fn fail(&self, call: Call, nth: u64, times: Times, kind: io::ErrorKind) {
        self.0.borrow_mut().faults.push(Fault { call, nth, times, kind });
    }

    /// Takes back every fault set with [`Self::fail`].
    pub fn mend(&self) {
        self.0.borrow_mut().faults.clear();
    }

    /// Calls of one kind so far.
    pub fn calls(&self, call: Call) -> u64 {
        self.0.borrow().calls.get(&call).copied().unwrap_or(0)
    }

    /// Operations so far: every call that changes or syncs.
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// Syncs so far, of files and folders.
    pub fn syncs(&self) -> u64 {
        self.0.borrow().syncs
    }

    /// Bytes in all files.
    pub fn bytes_used(&self) -> u64 {
        self.0.borrow().bytes_used()
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        self.0.borrow().names.files.keys().cloned().collect()
    }

    /// What a file holds now.
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        self.0.borrow().names.files.get(path).map(|file| file.borrow().now.clone())
    }

    /// Turns one bit of a file, on the device and in every cache: rot. False where there is no such bit.
    pub fn flip_bit(&self, path: &str, bit: u64) -> bool {
        let state = self.0.borrow();
        let Some(file) = state.names.files.get(path) else { return false };
        let mut file = file.borrow_mut();
        let at = (bit / 8) as usize;
        if at >= file.now.len() {
            return false;
        }
        file.now[at] ^= 1 << (bit % 8);
        file.synced = file.now.clone();
        file.unsynced.clear();
        true
    }

    /// A disk with everything this one was handed, as after `kill -9`: nothing more is synced than before.
    pub fn after_kill(&self) -> SimDisk {
        let state = self.0.borrow();
        let mut copies = Copies::default();
        let disk = SimDisk::holding(state.random, copies.names(&state.names));
        {
            let mut copy = disk.0.borrow_mut();
            copy.synced_names = copies.names(&state.synced_names);
            copy.name_changes = state.name_changes.iter().map(|change| copies.change(change)).collect();
        }
        disk
    }

    /// A disk with what a power cut may leave, one of the possible outcomes for each seed.
    pub fn after_power_cut(&self, seed: u64) -> SimDisk {
        let state = self.0.borrow();
        let mut random = seed ^ state.random;
        let mut names = state.synced_names.clone();
        for change in &state.name_changes {
            if next_random(&mut random) & 1 == 0 {
                names.apply(change);
            }
        }
        names.drop_what_has_no_folder();
        for file in names.files.values_mut() {
            let left = file.borrow().after_power_cut(&mut random);
            *file = Rc::new(RefCell::new(Inode { now: left.clone(), synced: left, unsynced: Vec::new() }));
        }
        SimDisk::holding(random, names)
    }
}

fn power_is_gone() -> io::Error {
    io::Error::other("the simulated power is gone")
}

/// What becomes of a call that changes something.
enum Fate {
    /// It is done.
    Done,
    /// The power goes during it: its effect is on its way, its caller learns of nothing.
    OnItsWay,
}

impl State {
    fn bytes_used(&self) -> u64 {
        self.names.files.values().map(|file| file.borrow().now.len() as u64).sum()
    }

    fn fault(&mut self, call: Call) -> io::Result<()> {
        if self.cut {
            return Err(power_is_gone());
        }
        let count = self.calls.entry(call).or_insert(0);
        let nth = *count;
        *count += 1;
        let hit = |fault: &&Fault| {
            fault.call == call && (fault.nth == nth || (fault.times == Times::FromThenOn && fault.nth < nth))
        };
        match self.faults.iter().find(hit) {
            Some(fault) => Err(io::Error::from(fault.kind)),
            None => Ok(()),
        }
    }

    /// Counts an operation and says whether it happens.
    fn operate(&mut self, call: Call) -> io::Result<Fate> {
        if self.cut {
            return Err(power_is_gone());
        }
        let cut_here = self.cut_at_operation == Some(self.operations)
            || (call == Call::Sync && self.cut_at_sync == Some(self.syncs));
        self.operations += 1;
        if call == Call::Sync {
            self.syncs += 1;
        }
        if cut_here {
            self.cut = true;
            let reached_the_disk = call != Call::Sync && next_random(&mut self.random) & 1 == 0;
            return if reached_the_disk { Ok(Fate::OnItsWay) } else { Err(power_is_gone()) };
        }
        self.fault(call)?;
        Ok(Fate::Done)
    }

    fn change_names(&mut self, call: Call, change: NameChange) -> io::Result<()> {
        let fate = self.operate(call)?;
        self.names.apply(&change);
        self.name_changes.push(change);
        fate.into_result()
    }

    fn file(&self, path: &str) -> io::Result<SharedInode> {
        self.names.files.get(path).cloned().ok_or_else(|| not_found(path))
    }
}

impl Fate {
    fn into_result(self) -> io::Result<()> {
        match self {
            Fate::Done => Ok(()),
            Fate::OnItsWay => Err(power_is_gone()),
        }
    }
}

fn not_found(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{path:?} is not on the simulated disk"))
}

impl SimDisk {
    fn opened(&self, file: SharedInode) -> SimFile {
        SimFile { disk: self.clone(), file }
    }

    fn open_now(&self, path: &str) -> io::Result<SimFile> {
        check_path(path)?;
        let state = self.0.borrow();
        if state.cut {
            return Err(power_is_gone());
        }
        Ok(self.opened(state.file(path)?))
    }

    fn create_now(&self, path: &str) -> io::Result<SimFile> {
        check_path(path)?;
        let mut state = self.0.borrow_mut();
        if !state.names.has_folder(folder_of(path)) {
            return Err(not_found(folder_of(path)));
        }
        if let Ok(file) = state.file(path) {
            let fate = state.operate(Call::Create)?;
            file.borrow_mut().change(Change::Cut(0));
            return fate.into_result().map(|()| self.opened(file));
        }
        let file = Rc::new(RefCell::new(Inode::default()));
        state.change_names(Call::Create, NameChange::File(path.into(), file.clone()))?;
        Ok(self.opened(file))
    }

    fn link_now(&self, from: &str, to: &str) -> io::Result<()> {
        check_path(from)?;
        check_path(to)?;
        let mut state = self.0.borrow_mut();
        let file = state.file(from)?;
        if !state.names.has_folder(folder_of(to)) {
            return Err(not_found(folder_of(to)));
        }
        if state.names.files.contains_key(to) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        state.change_names(Call::Link, NameChange::File(to.into(), file))
    }

    fn rename_now(&self, from: &str, to: &str) -> io::Result<()> {
        check_path(from)?;
        check_path(to)?;
        let mut state = self.0.borrow_mut();
        let file = state.file(from)?;
        state.change_names(Call::Rename, NameChange::Renamed(from.into(), to.into(), file))
    }

    fn remove_now(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.file(path)?;
        state.change_names(Call::Rename, NameChange::Removed(path.into()))
    }

    fn list_now(&self, folder: &str) -> io::Result<Vec<String>> {
        check_path(folder)?;
        let state = self.0.borrow();
        if state.cut {
            return Err(power_is_gone());
        }
        if !state.names.has_folder(folder) {
            return Err(not_found(folder));
        }
        let paths = state.names.files.keys().chain(&state.names.folders);
        let inside = paths.filter(|path| folder_of(path) == folder && !path.is_empty());
        let name = |path: &String| path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name).to_owned();
        let mut names: Vec<String> = inside.map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_now(&self, folder: &str) -> io::Result<()> {
        check_path(folder)?;
        let mut state = self.0.borrow_mut();
        let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
        for end in ends {
            let path = &folder[..end];
            if !state.names.has_folder(path) {
                state.change_names(Call::Create, NameChange::Folder(path.into()))?;
            }
        }
        Ok(())
    }

    fn sync_dir_now(&self, folder: &str) -> io::Result<()> {
        check_path(folder)?;
        let mut state = self.0.borrow_mut();
        if !state.names.has_folder(folder) {
            return Err(not_found(folder));
        }
        state.operate(Call::Sync)?.into_result()?;
        let changes = std::mem::take(&mut state.name_changes);
        for change in changes {
            if change.folder() == folder {
                state.synced_names.apply(&change);
            } else {
                state.name_changes.push(change);
            }
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &str) -> impl Future<Output = io::Result<SimFile>> {
        ready(self.open_now(path))
    }

    fn create(&self, path: &str) -> impl Future<Output = io::Result<SimFile>> {
        ready(self.create_now(path))
    }

    fn link(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>> {
        ready(self.link_now(from, to))
    }

    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>> {
        ready(self.rename_now(from, to))
    }

    fn remove(&self, path: &str) -> impl Future<Output = io::Result<()>> {
        ready(self.remove_now(path))
    }

    fn list(&self, folder: &str) -> impl Future<Output = io::Result<Vec<String>>> {
        ready(self.list_now(folder))
    }

    fn create_dir(&self, folder: &str) -> impl Future<Output = io::Result<()>> {
        ready(self.create_dir_now(folder))
    }

    fn sync_dir(&self, folder: &str) -> impl Future<Output = io::Result<()>> {
        ready(self.sync_dir_now(folder))
    }
}

impl SimFile {
    fn write_now(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut state = self.disk.0.borrow_mut();
        let fate = state.operate(Call::Write)?;
        let grows = (position + bytes.len()).saturating_sub(self.file.borrow().now.len()) as u64;
        let free = state.capacity_bytes.map_or(u64::MAX, |max| max.saturating_sub(state.bytes_used()));
        let fits = bytes.len() - (grows.saturating_sub(free) as usize).min(bytes.len());
        if fits > 0 {
            self.file.borrow_mut().change(Change::Written { position, bytes: bytes[..fits].to_vec() });
        }
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        fate.into_result()
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, position: u64, len: usize) -> impl Future<Output = io::Result<Vec<u8>>> {
        let read = || {
            self.disk.0.borrow_mut().fault(Call::Read)?;
            let file = self.file.borrow();
            let start = usize::try_from(position).unwrap_or(usize::MAX).min(file.now.len());
            let end = start.saturating_add(len).min(file.now.len());
            Ok(file.now[start..end].to_vec())
        };
        ready(read())
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> impl Future<Output = io::Result<()>> {
        ready(self.write_now(position, bytes))
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> {
        let sync = || {
            self.disk.0.borrow_mut().operate(Call::Sync)?.into_result()?;
            self.file.borrow_mut().sync();
            Ok(())
        };
        ready(sync())
    }

    fn len(&self) -> impl Future<Output = io::Result<u64>> {
        ready(if self.disk.is_cut() { Err(power_is_gone()) } else { Ok(self.file.borrow().now.len() as u64) })
    }

    fn truncate(&self, len: u64) -> impl Future<Output = io::Result<()>> {
        let cut = || {
            let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let fate = self.disk.0.borrow_mut().operate(Call::Write)?;
            self.file.borrow_mut().change(Change::Cut(len));
            fate.into_result()
        };
        ready(cut())
    }
}
