//! When parameters in host memory change their memory, so that a few tensors do not keep a whole message's allocation.

use plugin_api::{Arena, Error, Result, TensorBuf};

use super::{Parameter, Parameters, Values};
use crate::bridge;
use crate::cow_buffer::CowBuffer;

impl Parameters {
    /// Copies the `retained` parameters, which a message did not replace, to an allocation of their own.
    pub(super) fn detach_retained(&mut self, retained: &[String]) -> Result<()> {
        let is_retained = |parameter: &&mut Parameter| {
            matches!(parameter.values, Values::Host(_)) && retained.contains(&parameter.name)
        };
        let retained = self.all.iter_mut().filter(is_retained);
        let mut arena = Arena::of(retained.map(|p| Arena::bytes::<f32>(p.tensor.numel())));
        for parameter in self.all.iter_mut().filter(is_retained) {
            let Values::Host(buffer) = &parameter.values else { continue };
            let mut draft = arena.alloc::<f32>(buffer.read().len());
            draft.as_mut_slice().copy_from_slice(buffer.read());
            parameter.set_buffer(CowBuffer::Owned(draft))?;
        }
        Ok(())
    }

    /// The bytes of a [`Arena`] that each of these parameters takes when it is written.
    pub(crate) fn relocation_bytes(&self, indices: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
        indices.map(|index| match &self.all[index].values {
            Values::Host(buffer) => buffer.relocation_bytes(),
            Values::Missing | Values::Device | Values::SharedDevice => 0,
        })
    }

    /// Calls `write` with a parameter's memory to write to. If that was relocated, it has no values yet, and the second
    /// argument holds them. `allocate` makes the memory to relocate to.
    ///
    /// # Errors
    /// If the parameter is not in host memory, or libtorch fails.
    pub(crate) fn write(
        &mut self,
        index: usize,
        allocate: impl FnOnce(usize) -> TensorBuf<f32>,
        write: impl FnOnce(&mut [f32], Option<&[f32]>),
    ) -> Result<()> {
        let parameter = &mut self.all[index];
        let Values::Host(buffer) = &mut parameter.values else {
            return Err(Error::tensor(&parameter.name, "has no values in host memory"));
        };
        let (memory, before) = buffer.write(allocate);
        let Some(before) = before else {
            write(memory, None);
            return Ok(());
        };
        let written = before.elements().map(|old| write(memory, Some(old)));
        // SAFETY: as in `Parameter::set_buffer`; the tensor's previous memory is freed at the end of this function.
        let moved = written.and_then(|()| unsafe { bridge::set_memory(&parameter.tensor, buffer.read()) });
        // After an error the tensor still uses its previous memory.
        moved.inspect_err(|_| *buffer = CowBuffer::shared(&before))
    }

    /// Copies the few parameters that no step wrote, such as the decoder, out of the message that they came with. Does
    /// nothing if most were not written, as with a frozen trunk.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn relocate_shared(&mut self) -> Result<()> {
        let bytes = |owned: bool| {
            let sizes = self.all.iter().filter_map(|parameter| match &parameter.values {
                Values::Host(buffer) if buffer.is_owned() == owned => Some(Arena::bytes::<f32>(buffer.read().len())),
                _ => None,
            });
            sizes.sum::<usize>()
        };
        let shared = bytes(false);
        if shared == 0 || shared > bytes(true) / 8 {
            return Ok(());
        }
        let mut arena = Arena::of([shared]);
        for index in 0..self.all.len() {
            if matches!(&self.all[index].values, Values::Host(buffer) if !buffer.is_owned()) {
                self.write(
                    index,
                    |len| arena.alloc(len),
                    |memory, old| old.into_iter().for_each(|old| memory.copy_from_slice(old)),
                )?;
            }
        }
        Ok(())
    }
}
