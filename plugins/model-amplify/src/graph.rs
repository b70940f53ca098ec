//! CUDA graphs: the kernels of a step, recorded once and launched together.
//!
//! libtorch's own class records them, since its allocator must know. The plugin links no CUDA library, so it looks up the class's
//! functions in the one that is open.

use std::ffi::c_void;
use std::ptr::NonNull;

use plugin_api::{Error, Result};

use crate::device;
use crate::native::{ErrorMessage, check};

/// Graphs that never run at the same time share a pool of memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool([u64; 2]);

/// The functions of libtorch's `at::cuda::CUDAGraph`, as `native.cpp` calls them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Functions {
    construct: NonNull<c_void>,
    destroy: NonNull<c_void>,
    begin: NonNull<c_void>,
    end: NonNull<c_void>,
    replay: NonNull<c_void>,
    pool: NonNull<c_void>,
}

/// Their names, of libtorch 2.11, in the order of the fields.
pub(crate) const SYMBOLS: [&str; 6] = [
    "_ZN2at4cuda9CUDAGraphC1Eb",
    "_ZN2at4cuda9CUDAGraphD1Ev",
    "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode",
    "_ZN2at4cuda9CUDAGraph11capture_endEv",
    "_ZN2at4cuda9CUDAGraph6replayEv",
    "_ZN2at4cuda17graph_pool_handleEv",
];

// SAFETY: the functions of `native.cpp`, with their types.
unsafe extern "C" {
    fn amplify_graph_pool(functions: *const Functions, out: *mut Pool) -> ErrorMessage;
    fn amplify_graph_begin(functions: *const Functions, pool: Pool, out: *mut *mut c_void) -> ErrorMessage;
    fn amplify_graph_end(functions: *const Functions, graph: *mut c_void) -> ErrorMessage;
    fn amplify_graph_replay(functions: *const Functions, graph: *mut c_void) -> ErrorMessage;
    fn amplify_graph_free(functions: *const Functions, graph: *mut c_void);
}

impl Functions {
    fn find() -> Result<Self> {
        let find = |name: &str| {
            let found = device::cuda_symbol(name).and_then(|found| NonNull::new(found).ok_or("is null".to_owned()));
            found.map_err(|cause| Error::other(format!("libtorch has no `{name}`")).because_of(cause))
        };
        let [construct, destroy, begin, end, replay, pool] = SYMBOLS;
        Ok(Self {
            construct: find(construct)?,
            destroy: find(destroy)?,
            begin: find(begin)?,
            end: find(end)?,
            replay: find(replay)?,
            pool: find(pool)?,
        })
    }
}

impl Pool {
    /// A new one.
    ///
    /// # Errors
    /// If there is no GPU, or libtorch fails.
    pub(crate) fn new() -> Result<Self> {
        let (functions, mut pool) = (Functions::find()?, Self([0; 2]));
        // SAFETY: the functions are libtorch's, and the call writes a pool.
        unsafe { check(amplify_graph_pool(&raw const functions, &raw mut pool)) }.map(|()| pool)
    }
}

/// A recorded graph.
#[derive(Debug)]
pub(crate) struct Graph {
    functions: Functions,
    graph: NonNull<c_void>,
}

// SAFETY: libtorch's object is used by one thread at a time, since its methods take it mutably.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` does on this thread's stream, which does not run yet. Tensors that it makes are in the pool's memory,
    /// and each launch writes them again.
    ///
    /// # Errors
    /// That of `work`, or if something in it cannot be recorded.
    pub(crate) fn record<T>(pool: Pool, work: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        let functions = Functions::find()?;
        let mut graph = std::ptr::null_mut();
        // SAFETY: the functions are libtorch's, and the call writes a new graph that is ours.
        unsafe { check(amplify_graph_begin(&raw const functions, pool, &raw mut graph)) }?;
        let graph = Self { functions, graph: NonNull::new(graph).expect("a graph without an error") };
        let worked = work();
        // It ends the recording of failed work too, so that the stream is usable.
        // SAFETY: the graph was begun, and ends once.
        let ended = unsafe { check(amplify_graph_end(&raw const graph.functions, graph.graph.as_ptr())) };
        let worked = worked?;
        ended.map(|()| (graph, worked))
    }

    /// Runs the recorded work on this thread's stream. Waits for nothing.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn launch(&mut self) -> Result<()> {
        // SAFETY: the graph was recorded.
        unsafe { check(amplify_graph_replay(&raw const self.functions, self.graph.as_ptr())) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the graph is ours, and nobody uses it any more.
        unsafe { amplify_graph_free(&raw const self.functions, self.graph.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu_count;

    #[test]
    fn without_a_gpu_there_are_no_graphs() {
        if gpu_count() == 0 {
            assert!(Pool::new().is_err());
        }
    }
}
