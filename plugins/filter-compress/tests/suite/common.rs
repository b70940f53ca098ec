//! What the tests share: messages, filters at both ends, a host that remembers.

use std::sync::Mutex;

use filter_compress::{Compress, Config, Method, Quantity};
use plugin_api::context::{Host, Silent};
use plugin_api::{Context, Element, Filter, Level, Message, Params, Result, Tensor};

pub(crate) const ALL: [Method; 5] = [Method::Fp16, Method::Bf16, Method::Int8, Method::Nf4, Method::TopK];
pub(crate) const QUANTIZERS: [Method; 4] = [Method::Fp16, Method::Bf16, Method::Int8, Method::Nf4];

pub(crate) fn tensor<T: Element>(elements: &[T]) -> Tensor {
    Tensor::from_slice(&[elements.len()], elements).unwrap()
}

pub(crate) fn model(tensors: Vec<(&str, Tensor)>) -> Message {
    tensors.into_iter().collect::<Params>().into()
}

/// Numbers between −1 and 1 that look random.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let seed = plugin_api::Seed::new(seed);
    (0..count as u64).map(|i| (seed.at(i).value() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

pub(crate) fn floats<'m>(message: &'m Message, name: &str) -> &'m [f32] {
    message.params.get(name).unwrap().elements().unwrap()
}

pub(crate) fn at_client(config: &Config) -> Compress {
    Compress::new(config.clone(), &Context::new(&Silent).with_client("a")).unwrap()
}

pub(crate) fn at_server(config: &Config) -> Compress {
    Compress::new(config.clone(), &Context::new(&Silent)).unwrap()
}

/// A call for the client `a`.
pub(crate) fn apply(filter: &mut Compress, message: &Message, base: &Message) -> Result<Message> {
    filter.apply(message.clone(), base, &Context::new(&Silent).with_client("a").with_round(0))
}

/// To the server and restored there, with the same base at both ends.
pub(crate) fn there(config: &Config, message: &Message, base: &Message) -> Message {
    let sent = apply(&mut at_client(config), message, base).unwrap();
    apply(&mut at_server(config), &sent, base).unwrap()
}

pub(crate) fn config(method: Method) -> Config {
    Config::new(method)
}

pub(crate) fn of(method: Method, of: Quantity) -> Config {
    Config { of: Some(of), ..Config::new(method) }
}

/// What three clients send from a global model, each a little further on than it.
pub(crate) fn trained(global: &Message, round: u64) -> Vec<Message> {
    let further = |client: u64| {
        let moved = numbers(1000, 10 * round + client);
        let new: Vec<f32> = floats(global, "w").iter().zip(&moved).map(|(x, moved)| x + 0.1 * moved).collect();
        model(vec![("w", tensor(&new)), ("bias", tensor(&[round as f32, client as f32]))])
    };
    (0..3).map(further).collect()
}

pub(crate) fn start() -> Message {
    model(vec![("w", tensor(&numbers(1000, 99))), ("bias", tensor(&[0.0_f32, 0.0]))])
}

pub(crate) fn farthest(a: &Message, b: &Message) -> f32 {
    floats(a, "w").iter().zip(floats(b, "w")).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A host that remembers scalars and notes.
#[derive(Default)]
pub(crate) struct Remembering {
    pub(crate) scalars: Mutex<Vec<(String, u64, f64)>>,
    pub(crate) notes: Mutex<Vec<(String, String)>>,
}

impl Host for Remembering {
    fn enabled(&self, _: Level) -> bool {
        false
    }
    fn log(&self, _: Level, _: &str) {}
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.scalars.lock().unwrap().push((tag.to_owned(), step, value));
    }
    fn progress(&self, _: u64, _: u64) {}
    fn note(&self, key: &str, text: &str) {
        self.notes.lock().unwrap().push((key.to_owned(), text.to_owned()));
    }
    fn cancelled(&self) -> bool {
        false
    }
}
