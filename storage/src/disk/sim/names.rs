//! The names on a simulated disk, and the changes of them that a power cut may take back.

use super::inode::SharedInode;
use crate::disk::folder_of;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) folders: BTreeSet<String>,
    pub(super) files: BTreeMap<String, SharedInode>,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Folder(String),
    File(String, SharedInode),
    Removed(String),
    Renamed(String, String, SharedInode),
}

/// Copies of inodes, each once however many names lead to it.
#[derive(Default)]
pub(super) struct Copies(Vec<(SharedInode, SharedInode)>);

impl Copies {
    fn inode(&mut self, file: &SharedInode) -> SharedInode {
        if let Some((_, copy)) = self.0.iter().find(|(old, _)| Rc::ptr_eq(old, file)) {
            return copy.clone();
        }
        let copy = Rc::new(RefCell::new(file.borrow().clone()));
        self.0.push((file.clone(), copy.clone()));
        copy
    }

    pub(super) fn names(&mut self, names: &Names) -> Names {
        let files = names.files.iter().map(|(path, file)| (path.clone(), self.inode(file)));
        Names { folders: names.folders.clone(), files: files.collect() }
    }

    pub(super) fn change(&mut self, change: &NameChange) -> NameChange {
        match change {
            NameChange::File(path, file) => NameChange::File(path.clone(), self.inode(file)),
            NameChange::Renamed(from, to, file) => {
                NameChange::Renamed(from.clone(), to.clone(), self.inode(file))
            }
            other => other.clone(),
        }
    }
}

impl NameChange {
    /// The folder whose sync makes the change durable.
    pub(super) fn folder(&self) -> &str {
        match self {
            NameChange::Folder(path) | NameChange::File(path, _) | NameChange::Removed(path) => {
                folder_of(path)
            }
            NameChange::Renamed(_, to, _) => folder_of(to),
        }
    }
}

impl Names {
    pub(super) fn has_folder(&self, folder: &str) -> bool {
        folder.is_empty() || self.folders.contains(folder)
    }

    pub(super) fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Folder(path) => {
                self.folders.insert(path.clone());
            }
            NameChange::File(path, file) => {
                self.files.insert(path.clone(), file.clone());
            }
            NameChange::Removed(path) => {
                self.files.remove(path);
            }
            NameChange::Renamed(from, to, file) => {
                self.files.remove(from);
                self.files.insert(to.clone(), file.clone());
            }
        }
    }

    pub(super) fn drop_what_has_no_folder(&mut self) {
        let folders = std::mem::take(&mut self.folders);
        // Sorted, so a folder comes after the one it lies in.
        for folder in folders {
            if self.has_folder(folder_of(&folder)) {
                self.folders.insert(folder);
            }
        }
        let kept = &self.folders;
        self.files.retain(|path, _| folder_of(path).is_empty() || kept.contains(folder_of(path)));
    }
}
