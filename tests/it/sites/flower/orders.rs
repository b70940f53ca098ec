//! A site under the orders of a Flower server, one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use fedplug_superlink::{Array, CallError, Connection, Content, DType, Dialect, Peer, Request, Server, ServerOptions};
use indexmap::IndexMap;
use test_support::superlink::{Program, SuperLink};

use super::{Setting, experiment};
use crate::sites::terminate;

/// The server, and how many orders it has sent.
struct Orders {
    server: Server,
    count: std::cell::Cell<u64>,
}

impl Orders {
    fn new(setting: &Setting, sites: &[(&str, String)]) -> Self {
        let peers: BTreeMap<String, Peer> =
            sites.iter().map(|(name, print)| ((*name).to_owned(), Peer::Flower(print.clone()))).collect();
        let state = setting.bench.path("server");
        let options = ServerOptions::new(Connection::new(setting.url()), "orders", state, peers);
        Self { server: Server::open(options, Arc::new(|_| ())).unwrap(), count: 0.into() }
    }

    fn send(&self, site: &str, kind: &str, content: Content) -> Result<Content, String> {
        self.count.set(self.count.get() + 1);
        let request = Request { kind: kind.to_owned(), key: self.count.get().to_string(), content, keep: false };
        self.server.call(site, request, &|| false).map(|answer| answer.content).map_err(|error| match error {
            CallError::Failed { reason, .. } => reason,
            other => panic!("{other}"),
        })
    }
}

/// The complete model of the experiment, in the model's order.
fn model() -> IndexMap<String, Array> {
    let array = |shape: &[u64], value: f32| {
        let count = shape.iter().product::<u64>() as usize;
        let bytes: Vec<u8> = (0..count).flat_map(|place| (value + 0.01 * place as f32).to_le_bytes()).collect();
        Array::new(DType::F32, shape.to_vec(), bytes.into()).unwrap()
    };
    let all =
        [("trunk.weight", &[2, 27][..], 0.1), ("regressors.0.weight", &[2], 0.5), ("regressors.0.bias", &[1], 1.0)];
    let named = all.into_iter().map(|(name, shape, value)| (name.to_owned(), array(shape, value)));
    named.chain([("regressors.0.scale".to_owned(), array(&[2], 1.0))]).collect()
}

fn names(arrays: &IndexMap<String, Array>) -> Vec<&str> {
    arrays.keys().map(String::as_str).collect()
}

/// Makes a site with an experiment of this many rounds, and starts it.
fn site(setting: &Setting, name: &str, rounds: u64, more: &str) -> (Program, String) {
    let own = experiment("own").replace("rounds = 2", &format!("rounds = {rounds}\n{more}"));
    setting.bench.write(&format!("{name}-own.toml"), &own);
    let file = format!("[flower]\nexperiment = \"{name}-own.toml\"\n");
    let print = setting.site(name, &file);
    (setting.join(name), print)
}

#[test]
fn a_site_does_what_its_own_experiment_says_and_no_more() {
    let Some(setting) = Setting::new(SuperLink::start(&["--insecure", "--isolation", "process"]), 2) else { return };
    let (a, print_a) = site(&setting, "a", 3, "");
    // `b` is not for Python servers.
    let print_b = setting.site("b", "");
    let _b = setting.join("b");
    let orders = Orders::new(&setting, &[("a", print_a), ("b", print_b)]);
    let (message, numpy, config) = (Dialect::Message, Dialect::NumPyClient, IndexMap::new);
    let refused = orders.send("b", "train", message.train(&model(), config())).unwrap_err();
    assert!(refused.contains("this site takes orders of `fedplug serve` only"), "{refused}");

    // What is no order of this model costs no round.
    let refused = orders.send("a", "query", message.train(&model(), config())).unwrap_err();
    assert!(refused.contains("takes the orders `train` and `evaluate` of a Python server, not `query`"), "{refused}");
    let renamed: IndexMap<String, Array> =
        model().into_iter().map(|(name, array)| (format!("x.{name}"), array)).collect();
    let refused = orders.send("a", "train", message.train(&renamed, config())).unwrap_err();
    assert!(refused.contains("tensor `x."), "{refused}");
    let few = model().into_iter().take(3).collect();
    let refused = orders.send("a", "train", numpy.train(&few, config())).unwrap_err();
    assert!(refused.contains("3 arrays came, and the model has 4 parameters"), "{refused}");

    // Both dialects, and the counts of the data.
    let evaluated = message.read_evaluated(orders.send("a", "evaluate", message.evaluate(&model(), config())).unwrap());
    let evaluated = evaluated.unwrap();
    assert!(evaluated.loss.unwrap() > 0.0 && evaluated.examples == 10, "{evaluated:?}");
    let order = || numpy.evaluate(&model(), config());
    assert_eq!(numpy.read_evaluated(orders.send("a", "evaluate", order()).unwrap()).unwrap(), evaluated);
    let trained = message.read_trained(orders.send("a", "train", message.train(&model(), config())).unwrap()).unwrap();
    assert_eq!((trained.examples, names(&trained.arrays)), (30, names(&model())));
    assert_ne!(trained.arrays["trunk.weight"], model()["trunk.weight"]);
    assert_eq!(
        trained.metrics.keys().collect::<Vec<_>>(),
        ["RMSE", "Spearman", "Pearson", "R2", "MAE", "NRMSE", "NMAE", "loss"]
    );
    let again = numpy.read_trained(orders.send("a", "train", numpy.train(&model(), config())).unwrap()).unwrap();
    assert_eq!(names(&again.arrays), ["0", "1", "2", "3"]);
    assert!(again.arrays.values().zip(model().values()).all(|(one, other)| one.shape() == other.shape()));

    // Rounds are counted over restarts.
    terminate(a);
    let _a = setting.join("a");
    orders.send("a", "train", message.train(&model(), config())).unwrap();
    let refused = orders.send("a", "train", message.train(&model(), config())).unwrap_err();
    assert!(refused.contains("the site's experiment has 3 rounds, and all were trained in this run"), "{refused}");
    let log = std::fs::read_to_string(setting.bench.path("a.log")).unwrap();
    assert!(log.contains("warning: the site restarted after 2 rounds of this run"), "{log}");
    orders.server.finish(true, "").unwrap();
}

#[test]
fn a_sites_own_rules_hold_for_a_python_server() {
    let Some(setting) = Setting::new(SuperLink::start(&["--insecure", "--isolation", "process"]), 2) else { return };
    let (_a, print) = site(
        &setting,
        "a",
        3,
        "report = \"none\"\n[[filter]]\nplugin = \"exclude-params\"\nat = \"client-output\"\ncontaining = \"regressor\"\n",
    );
    let orders = Orders::new(&setting, &[("a", print)]);
    let (message, numpy, config) = (Dialect::Message, Dialect::NumPyClient, IndexMap::new);
    let refused = orders.send("a", "evaluate", message.evaluate(&model(), config())).unwrap_err();
    assert!(refused.contains("the site reports no metrics"), "{refused}");
    let trained = message.read_trained(orders.send("a", "train", message.train(&model(), config())).unwrap()).unwrap();
    assert_eq!((names(&trained.arrays), trained.metrics.len()), (vec!["trunk.weight"], 0));
    // The private heads are then the site's own, and a strategy sends back what it has.
    let shared = trained.arrays;
    orders.send("a", "train", message.train(&shared, config())).unwrap();
    let refused = orders.send("a", "train", numpy.train(&model(), config())).unwrap_err();
    assert!(refused.contains("is missing, and a `NumPyClient` tells arrays by their order only"), "{refused}");
    orders.server.finish(true, "").unwrap();
}
