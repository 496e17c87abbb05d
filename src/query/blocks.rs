//! A list that grows without moving what it holds, and can be let go of piece by piece.
//!
//! A `Vec` of some million rows moves all of them when it grows, and gives all its pages back at once when it
//! is dropped: milliseconds in which nothing else runs. Here the longest step is one block's.

/// Items in a block; a power of two, so that a place is two shifts away.
pub(crate) const BLOCK_ITEMS: usize = 4096;
const _: () = assert!(BLOCK_ITEMS.is_power_of_two());
/// Blocks let go of in one step.
pub(crate) const BLOCKS_DROPPED_PER_STEP: usize = 8;

/// See the head of this file. All blocks but the last hold [`BLOCK_ITEMS`].
#[derive(Debug)]
pub(crate) struct Blocks<T> {
    blocks: Vec<Vec<T>>,
}

impl<T> Default for Blocks<T> {
    fn default() -> Blocks<T> {
        Blocks { blocks: Vec::new() }
    }
}

impl<T> Blocks<T> {
    pub(crate) fn len(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK_ITEMS + last.len())
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.blocks.get(index / BLOCK_ITEMS)?.get(index % BLOCK_ITEMS)
    }

    pub(crate) fn push(&mut self, item: T) {
        match self.blocks.last_mut() {
            Some(last) if last.len() < BLOCK_ITEMS => last.push(item),
            // The first block grows, so that a short list is small.
            None => self.blocks.push(vec![item]),
            Some(_) => {
                let mut block = Vec::with_capacity(BLOCK_ITEMS);
                block.push(item);
                self.blocks.push(block);
            }
        }
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let last = self.blocks.last_mut()?;
        let item = last.pop();
        if last.is_empty() {
            self.blocks.pop();
        }
        item
    }

    /// Bytes of memory that the items take, places not filled yet included.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK_ITEMS + last.capacity())
            * size_of::<T>()
    }

    /// Lets go of some blocks, the last first; `false` when none is left.
    pub(crate) fn let_go(&mut self) -> bool {
        self.blocks.truncate(self.blocks.len().saturating_sub(BLOCKS_DROPPED_PER_STEP));
        !self.blocks.is_empty()
    }

    pub(crate) fn into_blocks(self) -> Vec<Vec<T>> {
        self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_list_is_let_go_of_in_steps() {
        let mut blocks = Blocks::default();
        (0..20 * BLOCK_ITEMS).for_each(|i| blocks.push(i));
        assert!(blocks.let_go());
        assert_eq!(blocks.len(), (20 - BLOCKS_DROPPED_PER_STEP) * BLOCK_ITEMS);
        assert!(blocks.let_go() && !blocks.let_go());
        assert_eq!((blocks.len(), blocks.bytes()), (0, 0));
    }

    proptest! {
        /// It is a `Vec`, also around the ends of blocks.
        #[test]
        fn a_list_of_blocks_is_a_list(pushes in 0usize..3 * BLOCK_ITEMS, pops in 0usize..3 * BLOCK_ITEMS) {
            let (mut blocks, mut naive) = (Blocks::default(), Vec::new());
            (0..pushes).for_each(|i| { blocks.push(i); naive.push(i) });
            (0..pops).for_each(|_| assert_eq!(blocks.pop(), naive.pop()));
            prop_assert_eq!(blocks.len(), naive.len());
            prop_assert_eq!(blocks.get(naive.len()), None);
            prop_assert!(naive.iter().enumerate().all(|(i, item)| blocks.get(i) == Some(item)));
            prop_assert!(blocks.bytes() >= naive.len() * size_of::<usize>());
            prop_assert_eq!(blocks.into_blocks().concat(), naive);
        }
    }
}
