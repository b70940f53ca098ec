//! A transformer block, forward and backward.

use plugin_api::{Result, TensorBuf};
use tch::Tensor;

use super::attention::{self, Shape};
use super::product::{Into, Rows, RowsMut, by_transpose, of_transpose, plain};
use super::space::{Kept, Scratch};
use super::{BlockWeights, Pack, Team, Weights, half, kernels};
use crate::bridge;
use crate::parameters::{Handle, Parameters};

/// The products of a linear layer with its weight of (outputs, inputs).
#[derive(Clone, Copy)]
pub(super) enum Layer {
    /// The output, of input and weight.
    Forward,
    /// The derivative by the input, of that by the output and the weight.
    Input,
    /// The derivative by the weight, of that by the output and the input.
    Weight,
}

/// One pass over a batch, forward or backward.
pub(super) struct Pass<'a> {
    pub(super) weights: &'a Weights,
    pub(super) pack: &'a Pack,
    pub(super) team: &'a Team,
    pub(super) gradient: &'a mut Option<Tensor>,
    pub(super) halves: &'a mut half::Scratch,
}

impl Pass<'_> {
    /// Rows, features, those of the feed-forward layer, and heads.
    fn sizes(&self) -> (usize, usize, usize, usize) {
        (self.pack.positions(), self.weights.size(), self.weights.inner(), self.weights.heads)
    }

    /// One block: from `kept.x` to `out`.
    pub(super) fn block(
        &mut self,
        w: &BlockWeights,
        parameters: &Parameters,
        kept: &mut Kept,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Self { pack, team, .. } = *self;
        let (n, size, inner, heads) = self.sizes();
        let (normed, gated) = (some(&mut scratch.rows, n * size), some(&mut scratch.wide, n * inner));
        let x = &kept.x.as_slice()[..n * size];
        self.norm(normed, some(&mut kept.r, n), x, parameters.numbers(&w.attention_norm)?);
        let qkv = some(&mut kept.qkv, n * 3 * size);
        for (part, weight) in [&w.q, &w.k, &w.v].into_iter().enumerate() {
            let to = RowsMut::within(&mut qkv[part * size..n * 3 * size - (2 - part) * size], size, 3 * size);
            let weight = Rows::new(parameters.numbers(weight)?, size);
            self.linear(Layer::Forward, to, Into::Set, Rows::new(normed, size), weight);
        }
        self.turn(qkv, false);
        let attended = some(&mut kept.attended, n * size);
        let logs = some(&mut kept.logs, n * heads);
        let alone = Team::alone();
        let sequences = pack.cut(((&mut *attended, size), (&mut *logs, heads)));
        team.each(sequences, |(sequence, ((attended, _), (logs, _)))| {
            let qkv = &qkv[sequence.start * 3 * size..sequence.end() * 3 * size];
            attention::forward(&Shape::new(size, heads, sequence), &alone, qkv, attended, logs);
        });
        let middle = some(&mut kept.middle, n * size);
        middle.copy_from_slice(x);
        let wo = Rows::new(parameters.numbers(&w.wo)?, size);
        self.linear(Layer::Forward, RowsMut::new(middle, size), Into::Add, Rows::new(attended, size), wo);

        self.norm(normed, some(&mut kept.r_middle, n), middle, parameters.numbers(&w.ffn_norm)?);
        let up = some(&mut kept.up, n * 2 * inner);
        let w12 = Rows::new(parameters.numbers(&w.w12)?, size);
        self.linear(Layer::Forward, RowsMut::new(up, 2 * inner), Into::Set, Rows::new(normed, size), w12);
        team.rows((&mut *gated, inner), |first, (gated, _)| {
            kernels::gate(gated, &up[first * 2 * inner..][..gated.len() * 2], inner);
        });
        out.copy_from_slice(middle);
        let w3 = Rows::new(parameters.numbers(&w.w3)?, inner);
        self.linear(Layer::Forward, RowsMut::new(out, size), Into::Add, Rows::new(gated, inner), w3);
        Ok(())
    }

    /// One block: from `dx`, the derivative by its output, to that by its input in the same place.
    pub(super) fn block_backward(
        &mut self,
        w: &BlockWeights,
        parameters: &mut Parameters,
        kept: &mut Kept,
        dx: &mut [f32],
        scratch: &mut Scratch,
        give: &mut impl FnMut(&mut Parameters, usize, Tensor) -> Result<()>,
    ) -> Result<()> {
        let Self { pack, team, .. } = *self;
        let (n, size, inner, heads) = self.sizes();
        let (rows, back) = (some(&mut scratch.rows, n * size), some(&mut scratch.back, n * size));
        let (gated, by_qkv) = (some(&mut scratch.wide, n * inner), some(&mut scratch.by_qkv, n * 3 * size));
        let [x, qkv, attended, middle] = [(&kept.x, 1), (&kept.qkv, 3), (&kept.attended, 1), (&kept.middle, 1)]
            .map(|(all, width)| &all.as_slice()[..n * width * size]);
        let [r, r_middle, logs] = [&kept.r, &kept.r_middle, &kept.logs].map(TensorBuf::as_slice);
        let up = some(&mut kept.up, n * 2 * inner);

        // The feed-forward half.
        let w3 = Rows::new(parameters.numbers(&w.w3)?, inner);
        self.linear(Layer::Input, RowsMut::new(gated, inner), Into::Set, Rows::new(dx, size), w3);
        team.rows(((&mut *up, 2 * inner), (&mut *gated, inner)), |_, ((up, _), (gated, _))| {
            kernels::gate_backward(up, gated, inner);
        });
        self.weight(parameters, &w.w3, Rows::new(dx, size), Rows::new(gated, inner), give)?;
        self.norm_again(rows, r_middle, middle, parameters.numbers(&w.ffn_norm)?);
        let w12 = Rows::new(parameters.numbers(&w.w12)?, size);
        self.linear(Layer::Input, RowsMut::new(back, size), Into::Set, Rows::new(up, 2 * inner), w12);
        self.weight(parameters, &w.w12, Rows::new(up, 2 * inner), Rows::new(rows, size), give)?;
        self.norm_backward(parameters, dx, back, (r_middle, middle), &w.ffn_norm, give)?;

        // Attention.
        self.linear(
            Layer::Input,
            RowsMut::new(back, size),
            Into::Set,
            Rows::new(dx, size),
            Rows::new(parameters.numbers(&w.wo)?, size),
        );
        self.weight(parameters, &w.wo, Rows::new(dx, size), Rows::new(attended, size), give)?;
        let alone = Team::alone();
        team.each(pack.cut((&mut *by_qkv, 3 * size)), |(sequence, (by, _))| {
            let own = |width: usize| sequence.start * width..sequence.end() * width;
            let shape = Shape::new(size, heads, sequence);
            let (qkv, attended, back) = (&qkv[own(3 * size)], &attended[own(size)], &back[own(size)]);
            attention::backward(&shape, &alone, by, qkv, attended, back, &logs[own(heads)]);
        });
        self.turn(by_qkv, true);
        self.norm_again(rows, r, x, parameters.numbers(&w.attention_norm)?);
        for (part, w) in [&w.q, &w.k, &w.v].into_iter().enumerate() {
            let by = Rows::within(&by_qkv[part * size..n * 3 * size - (2 - part) * size], size, 3 * size);
            let into = if part == 0 { Into::Set } else { Into::Add };
            self.linear(Layer::Input, RowsMut::new(back, size), into, by, Rows::new(parameters.numbers(w)?, size));
            self.weight(parameters, w, by, Rows::new(rows, size), give)?;
        }
        self.norm_backward(parameters, dx, back, (r, x), &w.attention_norm, give)
    }

    /// A product of a linear layer.
    fn linear(&mut self, layer: Layer, out: RowsMut<'_>, into: Into, a: Rows<'_>, b: Rows<'_>) {
        let team = self.team;
        match (self.weights.half, layer) {
            (true, _) => self.halves.product(team, layer, out, into, &a, &b),
            (false, Layer::Forward) => by_transpose(team, out, into, 1.0, a, b),
            (false, Layer::Input) => plain(team, out, into, 1.0, a, b),
            (false, Layer::Weight) => of_transpose(team, out, into, 1.0, a, b),
        }
    }

    /// Gives away the gradient of a linear layer's weight.
    fn weight(
        &mut self,
        parameters: &mut Parameters,
        weight: &Handle,
        by_output: Rows<'_>,
        input: Rows<'_>,
        give: &mut impl FnMut(&mut Parameters, usize, Tensor) -> Result<()>,
    ) -> Result<()> {
        let mut gradient = gradient_like(weight, self.gradient)?;
        let width = weight.size()[1] as usize;
        // SAFETY: the memory is the workspace's own; who got the gradient that was there before reads it while `give` runs.
        let out = RowsMut::new(unsafe { bridge::slice_mut(&mut gradient) }, width);
        self.linear(Layer::Weight, out, Into::Set, by_output, input);
        give(parameters, weight.place, gradient)
    }

    /// Turns queries and keys by their positions.
    fn turn(&self, qkv: &mut [f32], back: bool) {
        let Self { pack, team, weights, .. } = *self;
        let (_, size, _, heads) = self.sizes();
        let (half, turns) = (size / heads, &weights.turns);
        team.rows((qkv, 3 * size), |first, (rows, _)| {
            for (row, &position) in rows.chunks_exact_mut(3 * size).zip(&pack.places()[first..]) {
                kernels::rotate(&mut row[..2 * size], &turns[position as usize * half..][..half], back);
            }
        });
    }

    fn norm(&self, y: &mut [f32], r: &mut [f32], x: &[f32], weight: &[f32]) {
        let (size, eps) = (self.weights.size(), self.weights.eps);
        self.team.rows(((y, size), (r, 1)), |first, ((y, _), (r, _))| {
            kernels::norm(y, r, &x[first * size..][..y.len()], weight, eps);
        });
    }

    fn norm_again(&self, y: &mut [f32], r: &[f32], x: &[f32], weight: &[f32]) {
        let size = self.weights.size();
        self.team.rows((y, size), |first, (y, _)| {
            kernels::norm_again(y, &r[first..], &x[first * size..][..y.len()], weight);
        });
    }

    /// Adds to `dx` the derivative through a norm, and gives away that of its weight.
    fn norm_backward(
        &mut self,
        parameters: &mut Parameters,
        dx: &mut [f32],
        dy: &[f32],
        (r, x): (&[f32], &[f32]),
        weight: &Handle,
        give: &mut impl FnMut(&mut Parameters, usize, Tensor) -> Result<()>,
    ) -> Result<()> {
        let (size, values, team) = (self.weights.size(), parameters.numbers(weight)?, self.team);
        let by_weight = team.sum(dx.len() / size, size, |row, sum| {
            let at = row * size..(row + 1) * size;
            kernels::norm_weight(sum, &dy[at.clone()], &x[at], r[row]);
        });
        team.rows((dx, size), |first, (dx, _)| {
            let at = first * size..first * size + dx.len();
            kernels::norm_backward(dx, &dy[at.clone()], &x[at], &r[first..], values);
        });
        let mut gradient = gradient_like(weight, self.gradient)?;
        // SAFETY: as in `weight`.
        unsafe { bridge::slice_mut(&mut gradient) }.copy_from_slice(&by_weight);
        give(parameters, weight.place, gradient)
    }
}

/// `len` numbers of a buffer, with whatever they hold.
fn some(buffer: &mut TensorBuf<f32>, len: usize) -> &mut [f32] {
    &mut buffer.as_mut_slice()[..len]
}

/// A parameter's gradient, in memory that held another one's.
pub(super) fn gradient_like(parameter: &Tensor, memory: &mut Option<Tensor>) -> Result<Tensor> {
    let len = parameter.numel() as i64;
    if memory.as_ref().is_none_or(|memory| memory.size()[0] < len) {
        *memory = None;
        let new = Tensor::f_empty([len], (tch::Kind::Float, tch::Device::Cpu)).map_err(bridge::torch)?;
        *memory = Some(new);
    }
    let memory = memory.as_ref().expect("made above");
    memory.f_narrow(0, 0, len).and_then(|part| part.f_reshape(parameter.size())).map_err(bridge::torch)
}
