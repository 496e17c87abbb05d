//! Two ways to read a segment in blocks on an executor: buffered, where the kernel's page cache keeps what was read, and
//! past it (glommio's `DmaFile`) with a cache of blocks of our own inside a memory budget. Which one files are read by
//! (`file.rs`) was decided by this; bench/README.md has the figures.
//!
//! Sketched before the first run: cold, the device counts, so both alike, and one block at a time is a round trip each for
//! both (some 100 us) unless the kernel reads ahead, which it does for whoever reads on; warm, a buffered read is a ring
//! entry and a copy out of the page cache, some 3 us and 0.1 ns a byte, and a hit in a cache of our own the copy alone.
//! The bytes are known beforehand: each block is held against a sum, so a fast wrong read fails.
//! CPU is that of all threads of the process, the ring's workers in the kernel among them.
//!
//! `cargo bench -p shard --bench reads` measures; under `cargo test` it runs small and only checks.

use glommio::io::DmaFile;
use shard::executor::{self, ExecutorConfig, PREEMPT_DEFAULT};
use shard::file::{Directory, ExecutorFile};
use shard::topology;
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;
use std::{env, fs};

/// What our own cache keeps: a block of a directory is as long, a column lies in one or two.
const BLOCK: u64 = 32 * 1024;
const FILE: &str = "segment";

fn main() {
    let is_small = !env::args().any(|argument| argument == "--bench");
    let (bytes, parts, rounds) = if is_small { (2 << 20, 20, 1) } else { (256 << 20, 4_000, 5) };
    // Below the current folder: the temporary one may lie in memory.
    let folder = tempfile::tempdir_in(".").expect("a folder");
    let path = folder.path().join(FILE);
    fs::write(&path, (0..bytes / 8).flat_map(|word| word_at(word).to_le_bytes()).collect::<Vec<u8>>())
        .expect("the disk has room");
    fs::File::open(&path).and_then(|file| file.sync_all()).expect("the device takes it");
    let sequential: Vec<(u64, usize)> =
        (0..bytes / BLOCK).map(|block| (block * BLOCK, BLOCK as usize)).collect();
    let random = random_parts(bytes, parts);
    println!(
        "{:<44} {:>10} {:>12} {:>12} {:>10}",
        "one at a time, least of the rounds", "MiB/s", "us a read", "CPU us", "CPU ns/B"
    );
    for (what, parts, is_cold) in [
        ("sequential, cold", &sequential, true),
        ("random, cold", &random, true),
        ("random, warm", &random, false),
    ] {
        for way in [Way::Buffered, Way::PastThePageCache] {
            let mut least: Option<Cost> = None;
            for _ in 0..rounds {
                let cost = measure(folder.path(), way, parts, is_cold);
                least =
                    Some(least.map_or(cost, |least| if cost.wall_ns < least.wall_ns { cost } else { least }));
            }
            let (Some(Cost { wall_ns, cpu_ns }), read) =
                (least, parts.iter().map(|part| part.1).sum::<usize>())
            else {
                continue;
            };
            let reads = parts.len() as f64;
            println!(
                "{:<44} {:>10.0} {:>12.2} {:>12.2} {:>10.3}",
                format!("{what}, {}", way.name()),
                read as f64 / wall_ns * 1e9 / f64::from(1 << 20),
                wall_ns / reads / 1e3,
                cpu_ns / reads / 1e3,
                cpu_ns / read as f64
            );
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Buffered,
    PastThePageCache,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Buffered => "buffered",
            Way::PastThePageCache => "DmaFile and our cache",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Cost {
    wall_ns: f64,
    cpu_ns: f64,
}

/// The word there; neighbours differ in all bytes.
fn word_at(word: u64) -> u64 {
    word.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Places and lengths as columns and directory blocks have them: no boundary of the device's blocks, 0.5 to 32 KiB.
fn random_parts(bytes: u64, count: usize) -> Vec<(u64, usize)> {
    let mut state = 1u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let part = |_| {
        let len = 512 + next(BLOCK - 512) / 8 * 8;
        (next((bytes - len) / 8) * 8, len as usize)
    };
    (0..count).map(part).collect()
}

/// Reads all parts once, after the page cache was emptied of the file or all of them were read before.
fn measure(folder: &Path, way: Way, parts: &[(u64, usize)], is_cold: bool) -> Cost {
    // It drops what the page cache holds of the file.
    let file = folder.join(FILE);
    let evicted =
        Command::new("dd").args(["iflag=nocache", "count=0"]).arg(format!("if={}", file.display())).output();
    assert!(evicted.is_ok_and(|output| output.status.success()), "dd is everywhere");
    let core = topology::discover().expect("the kernel says which cores there are").allowed[0];
    let config = ExecutorConfig {
        core,
        name: "reads".to_owned(),
        io_memory_bytes: 1 << 20,
        preempt: PREEMPT_DEFAULT,
        nicer_by: 0,
    };
    let (folder, parts) = (folder.to_owned(), parts.to_vec());
    let run = move || async move {
        let mut reader = match way {
            Way::Buffered => Reader::Buffered(Directory::new(folder).open(FILE).await.expect("it is there")),
            Way::PastThePageCache => {
                let file =
                    DmaFile::open(folder.join(FILE)).await.expect("the file system reads past its cache");
                // All parts fit, so that warm is warm.
                Reader::PastThePageCache(file, BlockCache::new(2 * parts.len()))
            }
        };
        if !is_cold {
            for (position, len) in &parts {
                reader.read(*position, *len).await;
            }
        }
        let (began, cpu) = (Instant::now(), cpu_ns());
        for (position, len) in &parts {
            let bytes = reader.read(*position, *len).await;
            let words = bytes.as_chunks::<8>().0;
            let (first, last) = (words.first().map(|word| u64::from_le_bytes(*word)), words.last());
            assert_eq!((bytes.len(), first), (*len, Some(word_at(position / 8))));
            assert_eq!(
                last.map(|word| u64::from_le_bytes(*word)),
                Some(word_at((position + *len as u64) / 8 - 1))
            );
        }
        let cost = Cost { wall_ns: began.elapsed().as_nanos() as f64, cpu_ns: (cpu_ns() - cpu) as f64 };
        reader.close().await;
        cost
    };
    executor::spawn(config, run).expect("an executor").join().expect("no panic")
}

/// Nanoseconds that all threads of the process have run, those of the kernel's ring among them.
fn cpu_ns() -> u64 {
    let threads = fs::read_dir("/proc/self/task").expect("the kernel tells of threads");
    let ran = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(ran).sum()
}

enum Reader {
    Buffered(ExecutorFile),
    PastThePageCache(DmaFile, BlockCache),
}

impl Reader {
    async fn read(&mut self, position: u64, len: usize) -> Vec<u8> {
        match self {
            Reader::Buffered(file) => file.read_at(position, len).await.expect("a read of a whole file"),
            Reader::PastThePageCache(file, cache) => {
                let mut bytes = Vec::with_capacity(len);
                let end = position + len as u64;
                for number in position / BLOCK..end.div_ceil(BLOCK) {
                    let block = match cache.find(number) {
                        Some(block) => block,
                        None => {
                            let read = file.read_at_aligned(number * BLOCK, BLOCK as usize).await;
                            cache.keep(number, read.expect("a read of a whole file").to_vec().into())
                        }
                    };
                    let from = position.saturating_sub(number * BLOCK).min(BLOCK) as usize;
                    let until = (end - number * BLOCK).min(BLOCK) as usize;
                    bytes.extend_from_slice(&block[from..until]);
                }
                bytes
            }
        }
    }

    async fn close(self) {
        if let Reader::PastThePageCache(file, _) = self {
            file.close().await.expect("a file that was read");
        }
    }
}

/// Blocks that were read; the one that came first goes first.
struct BlockCache {
    blocks: HashMap<u64, Rc<[u8]>>,
    order: VecDeque<u64>,
    blocks_max: usize,
}

impl BlockCache {
    fn new(blocks_max: usize) -> BlockCache {
        BlockCache { blocks: HashMap::new(), order: VecDeque::new(), blocks_max }
    }

    fn find(&self, number: u64) -> Option<Rc<[u8]>> {
        self.blocks.get(&number).cloned()
    }

    fn keep(&mut self, number: u64, block: Rc<[u8]>) -> Rc<[u8]> {
        if self.order.len() == self.blocks_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.blocks.remove(&oldest);
        }
        self.order.push_back(number);
        self.blocks.insert(number, block.clone());
        block
    }
}
