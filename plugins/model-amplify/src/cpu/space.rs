//! The memory of a forward and a backward pass.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use plugin_api::{Arena, TensorBuf};
use tch::Tensor;

use super::{Pack, Weights, half};

/// Memory that is used from batch to batch. It is made by the first, in one piece, and again by one that needs more.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(super) kept: Vec<Kept>,
    /// The last block's output.
    pub(super) hidden: TensorBuf<f32>,
    pub(super) scratch: Scratch,
    /// One parameter's gradient after the other.
    pub(super) gradient: Option<Tensor>,
    pub(super) halves: half::Scratch,
    /// For how many rows there is room.
    rows: usize,
    /// Whether there is room for the derivative.
    learns: bool,
    /// What all of it is taken from.
    arena: Arena,
}

/// What is kept of a block for its derivative.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The input.
    pub(super) x: TensorBuf<f32>,
    pub(super) r: TensorBuf<f32>,
    /// Queries and keys, turned, and values: a row of `3 · size` each.
    pub(super) qkv: TensorBuf<f32>,
    /// The logarithms of attention's sums, sequence by sequence.
    pub(super) logs: TensorBuf<f32>,
    /// What the heads gathered.
    pub(super) attended: TensorBuf<f32>,
    /// The input of the feed-forward half.
    pub(super) middle: TensorBuf<f32>,
    pub(super) r_middle: TensorBuf<f32>,
    /// What comes out of `w12`.
    pub(super) up: TensorBuf<f32>,
}

/// What is kept of no block: one uses it after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Rows as wide as the model.
    pub(super) rows: TensorBuf<f32>,
    /// Rows as wide as the feed-forward layer.
    pub(super) wide: TensorBuf<f32>,
    /// The derivative by queries, keys and values.
    pub(super) by_qkv: TensorBuf<f32>,
    /// The derivative by what a half of the block began with.
    pub(super) back: TensorBuf<f32>,
    /// The derivative by the block's output.
    pub(super) dx: TensorBuf<f32>,
}

impl Workspace {
    /// Makes room for a batch, and for its derivative if all blocks are `kept`.
    pub(super) fn fit(&mut self, weights: &Weights, pack: &Pack, kept: bool) {
        let (rows, blocks) = (pack.positions(), if kept { weights.blocks.len() } else { 1 });
        if self.rows >= rows && self.kept.len() >= blocks && (self.learns || !kept) {
            return;
        }
        // Nothing of the old is needed again, so it goes before the new comes.
        let (gradient, halves) = (self.gradient.take(), std::mem::take(&mut self.halves));
        let mut arena = std::mem::take(self).arena;
        let (size, inner, heads) = (weights.size(), weights.inner(), weights.heads);
        let derivative = if kept { size } else { 0 };
        let of_all = [size, size, inner, 3 * derivative, derivative, derivative];
        let of_block = [size, 1, 3 * size, heads, size, size, 1, 2 * inner];
        let widths = of_all.into_iter().chain(std::iter::repeat_n(of_block, blocks).flatten());
        let sizes = widths.map(|width| Arena::bytes::<f32>(rows * width));
        if !arena.reset(sizes.clone()) {
            drop(arena);
            arena = Arena::of(sizes);
        }
        let mut take = |width| arena.alloc::<f32>(rows * width);
        let [hidden, narrow, wide, by_qkv, back, dx] = of_all.map(&mut take);
        let of_block = |_| {
            let [x, r, qkv, logs, attended, middle, r_middle, up] = of_block.map(&mut take);
            Kept { x, r, qkv, logs, attended, middle, r_middle, up }
        };
        let kept_blocks = (0..blocks).map(of_block).collect();
        let scratch = Scratch { rows: narrow, wide, by_qkv, back, dx };
        *self = Self { kept: kept_blocks, hidden, scratch, gradient, halves, rows, learns: kept, arena };
    }
}

/// Memory that waits to be used by whoever computes next, so that no more is made than computes at a time: pages that the
/// system hands out anew cost more than what is done with them.
#[derive(Debug, Default)]
pub(crate) struct Spaces(Mutex<Vec<Workspace>>);

impl Spaces {
    /// Those of all models of this process. They go with the last of these.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Spaces>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::default());
            *shared = Arc::downgrade(&new);
            new
        })
    }

    /// Takes one out, or an empty one.
    pub(crate) fn take(&self) -> Workspace {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Puts one back.
    pub(crate) fn put(&self, space: Workspace) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(space);
    }
}
