//! The memory of a forward and a backward pass, used again from batch to batch.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use plugin_api::{Arena, TensorBuf};

use super::{Encoder, PackedBatch};

/// Buffers for batches of up to `tokens` tokens, in one allocation. A larger batch replaces it.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Each block's input with `backward`, otherwise a single one that all blocks share: (tokens, size).
    pub(super) inputs: Vec<TensorBuf<f32>>,
    /// One entry for each of `inputs`; with activation checkpointing a single one.
    pub(super) activations: Vec<Activations>,
    /// The last block's output, (tokens, size).
    pub(super) hidden: TensorBuf<f32>,
    pub(super) scratch: Scratch,
    /// The gradient of one parameter at a time.
    pub(super) gradient: TensorBuf<f32>,
    tokens: usize,
    /// Whether the buffers of the backward pass exist.
    backward: bool,
    /// The allocation that the buffers are parts of.
    arena: Arena,
}

/// What a block saves for its backward pass besides its input. Each has one row per token.
#[derive(Debug, Default)]
pub(super) struct Activations {
    /// The scales of the norm before attention, (tokens).
    pub(super) attention_scales: TensorBuf<f32>,
    /// Rotated queries, rotated keys, and values, (tokens, 3 · size).
    pub(super) qkv: TensorBuf<f32>,
    /// `log Σ exp` of the attention scores: (heads, length) of one sequence after the other.
    pub(super) log_sums: TensorBuf<f32>,
    /// The attention's output before `wo`, (tokens, size).
    pub(super) attended: TensorBuf<f32>,
    /// The residual stream after attention, (tokens, size).
    pub(super) residual: TensorBuf<f32>,
    /// The scales of the norm before the feed-forward layer, (tokens).
    pub(super) ffn_scales: TensorBuf<f32>,
    /// The output of `w12`, (tokens, 2 · inner).
    pub(super) gate_up: TensorBuf<f32>,
}

/// Temporary buffers that all blocks share.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The output of a norm, (tokens, size).
    pub(super) normed: TensorBuf<f32>,
    /// The output of SwiGLU, or the derivative with respect to it, (tokens, inner).
    pub(super) gated: TensorBuf<f32>,
    /// (tokens, 3 · size).
    pub(super) d_qkv: TensorBuf<f32>,
    /// The derivative with respect to the output of a norm or of attention, (tokens, size).
    pub(super) d_branch: TensorBuf<f32>,
    /// The derivative with respect to the residual stream, (tokens, size).
    pub(super) dx: TensorBuf<f32>,
    /// What adapters have between their two factors, (tokens, rank), once or twice. It grows when it is used.
    pub(super) low: TensorBuf<f32>,
}

impl Workspace {
    /// Makes the buffers large enough for a batch, and for its backward pass if `backward`.
    pub(super) fn reserve(&mut self, encoder: &Encoder, batch: &PackedBatch, backward: bool) {
        let (tokens, blocks) = (batch.tokens(), if backward { encoder.trained_blocks() } else { 1 });
        let saving = if encoder.checkpointing { 1 } else { blocks };
        let is_enough = self.inputs.len() >= blocks && self.activations.len() >= saving;
        if self.tokens >= tokens && is_enough && (self.backward || !backward) {
            return;
        }
        // Frees the old buffers before the new ones are allocated.
        let gradient = std::mem::take(&mut self.gradient);
        let mut arena = std::mem::take(self).arena;
        let (size, inner, heads) = (encoder.size(), encoder.inner(), encoder.heads);
        let d_size = if backward { size } else { 0 };
        let shared_widths = [size, size, inner, 3 * d_size, d_size, d_size];
        let block_widths = [1, 3 * size, heads, size, size, 1, 2 * inner];
        let widths = shared_widths.into_iter().chain(std::iter::repeat_n(size, blocks));
        let widths = widths.chain(std::iter::repeat_n(block_widths, saving).flatten());
        let sizes = widths.map(|width| Arena::bytes::<f32>(tokens * width));
        if !arena.reset(sizes.clone()) {
            drop(arena);
            arena = Arena::of(sizes);
        }
        let mut take = |width| arena.alloc::<f32>(tokens * width);
        let [hidden, normed, gated, d_qkv, d_branch, dx] = shared_widths.map(&mut take);
        let inputs = (0..blocks).map(|_| take(size)).collect();
        let block = |_| {
            let [attention_scales, qkv, log_sums, attended, residual, ffn_scales, gate_up] =
                block_widths.map(&mut take);
            Activations { attention_scales, qkv, log_sums, attended, residual, ffn_scales, gate_up }
        };
        let activations = (0..saving).map(block).collect();
        let scratch = Scratch { normed, gated, d_qkv, d_branch, dx, low: TensorBuf::default() };
        *self = Self { inputs, activations, hidden, scratch, gradient, tokens, backward, arena };
    }
}

/// The first `len` elements of a buffer, with whatever values they have.
pub(super) fn prefix(buffer: &mut TensorBuf<f32>, len: usize) -> &mut [f32] {
    &mut buffer.as_mut_slice()[..len]
}

/// The first `len` elements of a buffer, which is allocated anew if it is shorter.
pub(super) fn grown(buffer: &mut TensorBuf<f32>, len: usize) -> &mut [f32] {
    if buffer.as_slice().len() < len {
        *buffer = TensorBuf::default();
        *buffer = TensorBuf::zeroed(len);
    }
    prefix(buffer, len)
}

/// Workspaces that no computation uses now. Fresh pages from the system cost more than a small model's arithmetic, so a
/// process makes only as many workspaces as compute at the same time.
#[derive(Debug, Default)]
pub struct WorkspacePool(Mutex<Vec<Workspace>>);

impl WorkspacePool {
    /// The pool of all models of this process, which is freed with the last of them.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<WorkspacePool>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::default());
            *shared = Arc::downgrade(&new);
            new
        })
    }

    /// Takes a workspace out, or makes an empty one.
    pub fn take(&self) -> Workspace {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Puts a workspace back.
    pub fn put(&self, workspace: Workspace) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
    }
}
