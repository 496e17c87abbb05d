//! What a restart finds of the memory: taking it, and bringing it back.

use super::{NO_SERIES, Numbers, Store};
use crate::checkpoint::{CheckpointEntry, CheckpointError, CheckpointJob, Loader, LoopNumbers, Pace};
use crate::disk::Disk;
use crate::journal::KnownNumbers;
use crate::memtable::SeriesId;

/// What came of a checkpoint.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Series in memory now.
    pub series: u64,
    /// Samples in memory now; one whose value was replaced late may count twice.
    pub samples: u64,
    /// What could not be read.
    pub damaged: Vec<CheckpointError>,
}

impl<D: Disk> Store<D> {
    /// Takes what is in memory at this moment, to be written as checkpoint `id`. The positions that belong to it are those
    /// up to which the journals are applied now.
    ///
    /// `None` while a part of memory is on its way to a segment, and when there is nothing to write.
    pub fn begin_checkpoint(&self, id: u64, pace: Pace) -> Option<CheckpointJob<D>> {
        if self.frozen.is_some() || !self.memtable.borrow().has_samples() {
            return None;
        }
        let numbers = (0u16..).zip(&self.loops).filter_map(|(loop_index, numbers)| {
            let dictionary = numbers.dictionary.filter(|_| !numbers.series.is_empty())?;
            Some(LoopNumbers { loop_index, dictionary, series: numbers.series.clone() })
        });
        let numbers = numbers.collect();
        // `Store::new` has checked that both fit.
        let of = (id, self.shard as u16, self.shards as u16);
        Some(CheckpointJob::new(self.disk.clone(), of, self.memtable.clone(), numbers, pace))
    }

    /// Brings back what a checkpoint holds, into a store without series. What is damaged, or from which place on the disk
    /// refuses to read it, is told and left out.
    ///
    /// # Errors
    /// A file of a newer program: nothing of it is known to be damaged.
    pub async fn load_checkpoint(&mut self, entry: &CheckpointEntry) -> Result<Loaded, CheckpointError> {
        let mut loader = match Loader::open(&self.disk, entry).await {
            Ok(loader) => loader,
            Err(damaged @ (CheckpointError::Damaged { .. } | CheckpointError::Io { .. })) => {
                return Ok(Loaded { damaged: vec![damaged], ..Loaded::default() });
            }
            Err(error) => return Err(error),
        };
        let promised = loader.series_promised().await;
        let mut restored = self.memtable.borrow_mut().begin_restoring(promised);
        loop {
            let block = match loader.read().await {
                Ok(block) => block,
                Err(error) => {
                    loader.break_off(error);
                    break;
                }
            };
            let is_block = {
                let mut memtable = self.memtable.borrow_mut();
                loader.take(block, &mut memtable.restoring(&mut restored))
            };
            if !is_block {
                break;
            }
            self.disk.give_way().await;
        }
        let mut memtable = self.memtable.borrow_mut();
        let ids = memtable.end_restoring(restored).unwrap_or_else(|| {
            memtable.clear();
            loader.refuse_all("a label set that is there twice");
            Vec::new()
        });
        let (series, samples) = (memtable.series_count() as u64, memtable.sample_count());
        drop(memtable);
        let (numbers, damaged) = loader.end();
        for LoopNumbers { loop_index, dictionary, series } in numbers {
            self.begin_dictionary(usize::from(loop_index), dictionary);
            let series = series.into_iter().map(|id| new_id(&ids, id)).collect();
            self.loops[usize::from(loop_index)] = Numbers { dictionary: Some(dictionary), series };
        }
        Ok(Loaded { series, samples, damaged })
    }

    /// Which numbers of the loops mean a series here: replay need not read again where they were given.
    pub fn known_numbers(&self) -> Vec<KnownNumbers> {
        let known = (0u16..).zip(&self.loops).filter_map(|(loop_index, numbers)| {
            let dictionary = numbers.dictionary.filter(|_| !numbers.series.is_empty())?;
            let owned = numbers.series.iter().map(|id| *id != NO_SERIES).collect();
            Some(KnownNumbers { loop_index, dictionary, owned })
        });
        known.collect()
    }
}

/// The id here of the series that had that one in the checkpoint. Mostly it is the same: holes are not written.
fn new_id(ids: &[u32], id: SeriesId) -> SeriesId {
    if ids.get(id.0 as usize) == Some(&id.0) {
        return id;
    }
    ids.binary_search(&id.0).map_or(NO_SERIES, |at| SeriesId(at as u32))
}
