//! Parameters in a device's memory: in buffers, and shared by models.

use plugin_api::Result;
use tch::Tensor;

use super::{Parameter, Parameters, Values};
use crate::bridge::torch_error;
use crate::flat;

impl Parameters {
    /// Moves the parameters that are `trained` to one buffer of the device, and the others to another. None may have values yet.
    /// Does nothing in host memory.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn join(&mut self, trained: impl Fn(&str) -> bool) -> Result<()> {
        if self.context.on_host {
            return Ok(());
        }
        for group in [true, false] {
            self.renew(|parameter| trained(&parameter.name) == group)?;
        }
        Ok(())
    }

    /// Those of a device whose names are `selected`, to share their memory. Their copies to the device are done.
    ///
    /// # Errors
    /// If one has no values, or libtorch fails.
    pub(crate) fn on_device(&self, selected: impl Fn(&str) -> bool) -> Result<Vec<(String, Tensor)>> {
        self.expect_values(|parameter| selected(&parameter.name))?;
        self.context.wait()?;
        let found = self.all.iter().filter(|parameter| selected(&parameter.name));
        Ok(found.map(|parameter| (parameter.name.clone(), parameter.tensor.detach())).collect())
    }

    /// Makes the parameters of these names use these tensors' memory, which others use too and nobody changes. What they had
    /// before is freed.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn adopt_on_device(&mut self, shared: &[(String, Tensor)]) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for parameter in &mut self.all {
            if let Some((_, tensor)) = shared.iter().find(|(name, _)| *name == parameter.name) {
                parameter.tensor.f_set_data(tensor).map_err(torch_error)?;
                parameter.values = Values::SharedDevice;
                self.moves += 1;
            }
        }
        Ok(())
    }

    /// Gives the parameters that share their memory with other models, and are `selected`, memory of their own, which has no
    /// values yet.
    ///
    /// # Errors
    /// If libtorch fails. Then nothing has changed.
    pub(super) fn leave_shared(&mut self, selected: impl Fn(&str) -> bool) -> Result<()> {
        self.renew(|parameter| matches!(parameter.values, Values::SharedDevice) && selected(&parameter.name))
    }

    /// Moves parameters to a new buffer of zeros.
    fn renew(&mut self, selected: impl Fn(&Parameter) -> bool) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut chosen: Vec<&mut Parameter> = self.all.iter_mut().filter(|parameter| selected(parameter)).collect();
        let shapes: Vec<_> = chosen.iter().map(|parameter| parameter.tensor.size()).collect();
        let views = flat::zeros(&shapes, self.context.device).map_err(torch_error)?;
        for (parameter, view) in chosen.iter_mut().zip(views) {
            parameter.tensor.f_set_data(&view).map_err(torch_error)?;
            parameter.values = Values::Missing;
        }
        self.moves += shapes.len() as u64;
        Ok(())
    }
}
