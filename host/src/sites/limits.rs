//! What a server may ask a site to do in a run: what the experiment says that the site has agreed to, and no more.

use crate::experiment::config::Federation;
use crate::sites::protocol::Request;

/// Checks a request. Its sender is a stranger: that a well-behaved server never asks for more is no reason to do it.
///
/// # Errors
/// If the experiment does not provide for it.
pub(super) fn check(request: &Request, federation: &Federation) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("the experiment does not provide for it: {what}"));
    match request {
        Request::Train(order) if order.round >= federation.rounds => {
            refuse(&format!("round {} of {}", order.round.saturating_add(1), federation.rounds))
        }
        Request::Train(order) if order.epochs > federation.local_epochs => {
            refuse(&format!("{} epochs in a round, and it has {}", order.epochs, federation.local_epochs))
        }
        Request::EvaluateIdle(_) | Request::EvaluateOther(_) | Request::Finish(_) if !federation.reports() => {
            refuse("an evaluation, and `federation.report` is `none`")
        }
        Request::Publish(_) | Request::EvaluateOther(_) if !federation.cross_site => {
            refuse("cross-site evaluation, and `federation.cross-site` is false")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Message;

    use super::*;
    use crate::federation::client::Order;

    #[test]
    fn a_server_gets_what_the_experiment_says_and_no_more() {
        let federation = |more: &str| -> Federation {
            let text = format!("rounds = 3\nlocal-epochs = 2\n{more}");
            plugin_api::config::read(&serde_json::to_value(toml::from_str::<toml::Value>(&text).unwrap()).unwrap())
                .unwrap()
        };
        let order = |round, epochs| Order { round, epochs, global: Message::default() };
        let (plain, silent, cross) = (federation(""), federation("report = \"none\""), federation("cross-site = true"));
        let asks: [(Request, [bool; 3]); 8] = [
            (Request::Train(order(2, 2)), [true; 3]),
            (Request::Train(order(3, 1)), [false; 3]),
            (Request::Train(order(u64::MAX, 1)), [false; 3]),
            (Request::Train(order(0, 3)), [false; 3]),
            (Request::EvaluateIdle(order(0, 0)), [true, false, true]),
            (Request::Finish(order(3, 0)), [true, false, true]),
            (Request::Publish(order(3, 0)), [false, false, true]),
            (Request::EvaluateOther(order(3, 0)), [false, false, true]),
        ];
        for (number, (request, wanted)) in asks.iter().enumerate() {
            let found = [&plain, &silent, &cross].map(|federation| check(request, federation).is_ok());
            assert_eq!(found, *wanted, "{number}");
        }
        let told = check(&asks[3].0, &plain).unwrap_err();
        assert_eq!(told, "the experiment does not provide for it: 3 epochs in a round, and it has 2");
    }
}
