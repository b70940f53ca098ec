//! The methods that compute a client's parameters at once: ridge regression, and sums over rows.

use plugin_api::{Context, Result, Task, Tensor};

use crate::config::Method;
use crate::ridge::{self, Solution, Sums};
use crate::{Linear, Targets};

impl Linear {
    /// Gives a task the parameters that predict 0, or the same probability for each class.
    pub(crate) fn start_baseline(&mut self, task: &str, outputs: usize) -> Result<()> {
        let features = self.features.number();
        let values = match self.config.method {
            Method::GradientDescent | Method::Ridge => Solution::zero(features, outputs).into(),
            Method::PooledRidge | Method::Mean => Sums::zero(features, outputs).into(),
        };
        self.put_exact(task, values)
    }

    /// The two f64 tensors of a task, of all methods but gradient descent.
    fn get_exact(&self, task: &str) -> Result<[Vec<f64>; 2]> {
        let mut found = [Vec::new(), Vec::new()];
        for ((name, shape), found) in self.tensors(task)?.into_iter().zip(&mut found) {
            *found = self.params.elements(&name, &shape)?.to_vec();
        }
        Ok(found)
    }

    fn put_exact(&mut self, task: &str, values: [Vec<f64>; 2]) -> Result<()> {
        for ((name, shape), values) in self.tensors(task)?.into_iter().zip(values) {
            self.params.insert(name, Tensor::from_slice(&shape, &values)?);
        }
        Ok(())
    }

    /// What predicts a task, of all methods but gradient descent.
    pub(crate) fn solution(&mut self, task: &str, ctx: &Context<'_>) -> Result<Solution> {
        let [first, second] = self.get_exact(task)?;
        let sums = match self.config.method {
            Method::PooledRidge | Method::Mean => Sums { gram: first, moment: second },
            Method::GradientDescent | Method::Ridge => return Ok(Solution { weight: first, bias: second }),
        };
        if let Some(solution) = self.solved.get(task) {
            return Ok(solution.clone());
        }
        let spec = &self.setup.tasks[self.setup.number(task)?];
        let zero = Solution::zero(self.features.number(), spec.outputs()?);
        let solution = match (self.config.method, spec.target_kind.classes()) {
            (Method::PooledRidge, _) => sums.ridge(self.config.ridge_lambda, ctx)?.unwrap_or(zero),
            (_, None) => sums.means().map_or(zero, |bias| Solution { bias, ..Solution::zero(0, 0) }),
            // The logits whose softmax are the shares.
            (_, Some(_)) => {
                let logits = |shares: Vec<f64>| shares.into_iter().map(f64::ln).collect();
                sums.means().map_or(zero, |shares| Solution { bias: logits(shares), ..Solution::zero(0, 0) })
            }
        };
        self.solved.insert(task.to_owned(), solution.clone());
        Ok(solution)
    }

    /// Computes ridge regression on the rows, or the sums over them divided by `rows`, those of all tasks.
    pub(crate) fn compute(&mut self, Task { spec, train, .. }: &Task, rows: usize, ctx: &Context<'_>) -> Result<()> {
        let x = self.features.of(spec, train)?;
        let targets = Targets::of(spec, train, None)?;
        let number = self.features.number();
        if let (Method::Ridge, Targets::Numbers(y)) = (self.config.method, &targets) {
            let Some(found) = ridge::of_rows(&x, y, number, self.config.ridge_lambda, ctx)? else { return Ok(()) };
            return self.put_exact(&spec.name, found.into());
        }
        let mut sums = Sums::zero(number, spec.outputs()?);
        for (row, x) in x.iter().enumerate() {
            ctx.check()?;
            match &targets {
                Targets::Numbers(y) => sums.add(x, 0, f64::from(y[row]), 1.0 / rows as f64),
                Targets::Classes(classes, _) => sums.add(x, classes[row], 1.0, 1.0 / rows as f64),
            }
        }
        self.put_exact(&spec.name, sums.into())
    }
}
