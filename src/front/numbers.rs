//! Numbers of series that come again, by what the loop's decoder calls their label sets: no label is looked at.
//!
//! Owner: one loop's intake, beside the decoder and the journal's writer whose words it keeps.
//! Always: what is given stands in the writer's present dictionary; with another one all is forgotten.
//! Bounds: a place for each label set that the decoder remembers, 16 bytes each. The decoder calls no two sets the
//! same and uses so many names in a row at a time, so a place is only ever taken from a set that it has forgotten.

use super::intake::Names;
use model::{RepeatId, SeriesNumber};

/// Those of each decoder that names label sets.
pub struct NumbersByNames {
    metrics: Numbers,
    remote_write: Numbers,
    lines: Numbers,
}

impl NumbersByNames {
    /// Where the decoders of remote write and of line protocol remember so many label sets.
    pub fn new(remembered: usize) -> NumbersByNames {
        NumbersByNames {
            metrics: Numbers::new(ingest::REPEATS_MAX),
            remote_write: Numbers::new(remembered),
            lines: Numbers::new(remembered),
        }
    }

    /// Those by which a batch of such names is numbered.
    pub fn of(&mut self, names: Names) -> &mut Numbers {
        match names {
            Names::Metrics => &mut self.metrics,
            Names::RemoteWrite { .. } => &mut self.remote_write,
            Names::Lines { .. } => &mut self.lines,
        }
    }
}

/// See the head of this file.
pub struct Numbers {
    /// The dictionary in which they are numbers.
    dictionary: u64,
    /// How many label sets the decoder remembers at a time, less one; their number is a power of two.
    mask: u64,
    /// By the decoder's id, as far as the mask goes.
    of: Vec<Option<Remembered>>,
}

#[derive(Clone, Copy)]
struct Remembered {
    repeat: RepeatId,
    number: SeriesNumber,
    owner: u16,
}

const _: () = assert!(size_of::<Option<Remembered>>() == 16);

impl Numbers {
    /// Those of a decoder that remembers so many label sets at a time, or fewer.
    pub fn new(places_max: usize) -> Numbers {
        Numbers { dictionary: 0, mask: places_max.next_power_of_two() as u64 - 1, of: Vec::new() }
    }

    /// What is asked and noted from now on is of that dictionary.
    pub fn begin(&mut self, dictionary: u64) {
        if self.dictionary != dictionary {
            self.dictionary = dictionary;
            self.of.clear();
        }
    }

    /// The number and the owner of a series.
    #[inline]
    pub fn get(&self, repeat: Option<RepeatId>) -> Option<(SeriesNumber, u16)> {
        let repeat = repeat?;
        let known = (*self.of.get(self.place(repeat))?)?;
        (known.repeat == repeat).then_some((known.number, known.owner))
    }

    /// Remembers both.
    pub fn note(&mut self, repeat: RepeatId, number: SeriesNumber, owner: u16) {
        let place = self.place(repeat);
        if self.of.len() <= place {
            self.of.resize(place + 1, None);
        }
        self.of[place] = Some(Remembered { repeat, number, owner });
    }

    #[inline]
    fn place(&self, repeat: RepeatId) -> usize {
        (repeat.0.get() & self.mask) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;
    const PLACES: usize = 128;

    fn id(id: u64) -> RepeatId {
        RepeatId(NonZeroU64::new(id).unwrap())
    }

    #[test]
    fn a_number_is_that_of_its_set_in_its_dictionary() {
        let mut numbers = Numbers::new(PLACES);
        numbers.begin(3);
        assert_eq!(numbers.get(Some(id(5))), None);
        numbers.note(id(5), SeriesNumber(50), 1);
        numbers.note(id(6), SeriesNumber(60), 0);
        numbers.begin(3);
        assert_eq!(numbers.get(Some(id(5))), Some((SeriesNumber(50), 1)));
        assert_eq!(numbers.get(Some(id(6))), Some((SeriesNumber(60), 0)));
        assert_eq!(
            (numbers.get(Some(id(4))), numbers.get(Some(id(7))), numbers.get(None)),
            (None, None, None)
        );
        let same_place = id(5 + PLACES as u64);
        assert_eq!(numbers.get(Some(same_place)), None);
        numbers.note(same_place, SeriesNumber(70), 2);
        assert_eq!(numbers.get(Some(same_place)), Some((SeriesNumber(70), 2)));
        assert_eq!(numbers.get(Some(id(5))), None);
        numbers.begin(4);
        assert_eq!(numbers.get(Some(id(6))), None);
    }
}
