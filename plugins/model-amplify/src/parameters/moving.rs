//! Where parameters on the CPU move when they are written to, and what they leave behind.

use plugin_api::{Arena, Error, Result, TensorBuf};

use super::{Parameter, Parameters, Values};
use crate::bridge;
use crate::numbers::Numbers;

impl Parameters {
    /// Moves what stays into memory of its own, so that it does not keep the whole piece that it shared with what is gone.
    pub(super) fn part_from_the_others(&mut self, staying: &[String]) -> Result<()> {
        let stays = |parameter: &&mut Parameter| {
            matches!(parameter.values, Values::Here(_)) && staying.contains(&parameter.name)
        };
        let mut arena = Arena::of(self.all.iter_mut().filter(stays).map(|p| Arena::bytes::<f32>(p.tensor.numel())));
        for parameter in self.all.iter_mut().filter(stays) {
            let Values::Here(numbers) = &parameter.values else { continue };
            let mut draft = arena.alloc::<f32>(numbers.read().len());
            draft.as_mut_slice().copy_from_slice(numbers.read());
            parameter.point(Numbers::Own(draft))?;
        }
        Ok(())
    }

    /// How many bytes of a [`Arena`] the parameters at these places take when they are written to.
    pub(crate) fn moved_bytes(&self, places: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
        places.map(|place| match &self.all[place].values {
            Values::Here(numbers) => numbers.moved_bytes(),
            Values::Missing | Values::OnDevice => 0,
        })
    }

    /// Lets `write` write to a parameter on the CPU; it gets the memory, and where the numbers still lie if that is new.
    ///
    /// # Errors
    /// If libtorch cannot make a tensor.
    pub(crate) fn write(
        &mut self,
        place: usize,
        arena: impl FnOnce(usize) -> TensorBuf<f32>,
        write: impl FnOnce(&mut [f32], Option<&[f32]>),
    ) -> Result<()> {
        let parameter = &mut self.all[place];
        let Values::Here(numbers) = &mut parameter.values else {
            return Err(Error::tensor(&parameter.name, "has no values here"));
        };
        let (memory, before) = numbers.write(arena);
        let Some(before) = before else {
            write(memory, None);
            return Ok(());
        };
        let written = before.elements().map(|old| write(memory, Some(old)));
        // SAFETY: as in `Parameter::point`; what the tensor pointed to goes at the end of this function.
        let moved = written.and_then(|()| unsafe { bridge::point(&parameter.tensor, numbers.read()) });
        // After an error the tensor points to where it did.
        moved.inspect_err(|_| *numbers = Numbers::of(&before))
    }

    /// Moves what no step wrote to, such as the decoder, after what steps did write to: a few tensors of a message would
    /// keep all of it in memory. Where little was written, as with a frozen trunk, all stays where it is.
    ///
    /// # Errors
    /// If libtorch cannot make a tensor.
    pub(crate) fn follow(&mut self) -> Result<()> {
        let bytes = |own: bool| {
            let such = self.all.iter().filter_map(|parameter| match &parameter.values {
                Values::Here(numbers) if numbers.is_own() == own => Some(Arena::bytes::<f32>(numbers.read().len())),
                _ => None,
            });
            such.sum::<usize>()
        };
        let left = bytes(false);
        if left == 0 || left > bytes(true) / 8 {
            return Ok(());
        }
        let mut arena = Arena::of([left]);
        for place in 0..self.all.len() {
            if matches!(&self.all[place].values, Values::Here(numbers) if !numbers.is_own()) {
                self.write(
                    place,
                    |len| arena.alloc(len),
                    |memory, old| old.into_iter().for_each(|old| memory.copy_from_slice(old)),
                )?;
            }
        }
        Ok(())
    }
}
