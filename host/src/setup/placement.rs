//! Assigning clients to devices, and the number of clients that work at the same time.

use std::collections::BTreeSet;

use crate::error::Diagnostic;

/// The devices of a run's clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The device of each client.
    pub devices: Vec<String>,
    /// How many clients work at the same time.
    pub workers: usize,
}

impl Placement {
    /// Assigns entry k of `wanted`, modulo its length, to client k. `auto` stands for the GPUs in `found`, or the CPU
    /// if there are none. `threads` is the number of clients that may work at the same time; 0 chooses it from the
    /// numbers of cores and devices. No more than `per_device` clients compute on one device other than the CPU.
    ///
    /// # Errors
    /// If a device is not among those that the model found.
    pub(crate) fn new(
        wanted: &[String],
        found: &[String],
        clients: usize,
        threads: usize,
        per_device: usize,
    ) -> Result<Self, Vec<Diagnostic>> {
        let gpus: Vec<&String> = found.iter().filter(|device| *device != "cpu").collect();
        let mut list: Vec<&str> = Vec::new();
        let mut reports = Vec::new();
        for (index, device) in wanted.iter().enumerate() {
            match device.as_str() {
                "auto" if gpus.is_empty() => list.push("cpu"),
                "auto" => list.extend(gpus.iter().map(|gpu| gpu.as_str())),
                known if found.iter().any(|device| device == known) => list.push(known),
                unknown if !wanted[..index].contains(device) => reports.push(
                    Diagnostic::new(format!("there is no device `{unknown}`"))
                        .hint(format!("the model finds: {}; `auto` takes the best of them", found.join(", "))),
                ),
                _ => {}
            }
        }
        if !reports.is_empty() || list.is_empty() {
            return Err(reports);
        }
        let devices: Vec<String> = (0..clients).map(|client| list[client % list.len()].to_owned()).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let used: BTreeSet<&str> = devices.iter().map(String::as_str).collect();
        let on_cpu = if threads == 0 { cores } else { threads };
        let places = |device: &&str| if *device == "cpu" { on_cpu } else { per_device };
        let carried = used.iter().map(places).fold(0, usize::saturating_add);
        let workers = if threads == 0 { carried } else { threads.min(carried) }.clamp(1, clients.max(1));
        Ok(Self { devices, workers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    #[test]
    fn clients_take_the_list_in_turn() {
        let found = texts(&["cpu", "cuda:0", "cuda:1", "cuda:2"]);
        let placement = Placement::new(&texts(&["cuda:0", "cuda:1", "cuda:2", "cuda:0"]), &found, 6, 4, 2).unwrap();
        assert_eq!(placement.devices, ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:0", "cuda:1"]);
        assert_eq!(placement.workers, 4);
        assert_eq!(Placement::new(&texts(&["auto"]), &found, 2, 0, 1).unwrap().devices, ["cuda:0", "cuda:1"]);
        assert_eq!(Placement::new(&texts(&["auto"]), &texts(&["cpu"]), 2, 9, 1).unwrap().workers, 2);
    }

    #[test]
    fn a_gpu_has_one_client_at_a_time_unless_more_are_asked_for() {
        let found = texts(&["cpu", "cuda:0", "cuda:1"]);
        let workers = |devices: &[&str], threads, per_device| {
            Placement::new(&texts(devices), &found, 6, threads, per_device).unwrap().workers
        };
        assert_eq!([0, 1, 5].map(|threads| workers(&["cuda:0"], threads, 1)), [1, 1, 1]);
        assert_eq!([0, 1, 5].map(|threads| workers(&["cuda:0"], threads, 3)), [3, 1, 3]);
        assert_eq!([0, 3].map(|threads| workers(&["auto"], threads, 1)), [2, 2]);
        assert_eq!(workers(&["cuda:0", "cuda:0", "cuda:1"], 0, 1), 2);
        // Those on the CPU come on top.
        assert_eq!(workers(&["cuda:0", "cpu"], 4, 1), 4);
        assert_eq!(workers(&["cpu"], 4, 1), 4);
    }

    #[test]
    fn every_unknown_device_is_told_once() {
        let wanted = texts(&["cuda:0", "cpu", "cuda:7", "cuda:0"]);
        let reports = Placement::new(&wanted, &texts(&["cpu"]), 2, 0, 1).unwrap_err();
        let messages: Vec<_> = reports.iter().map(Diagnostic::message).collect();
        assert_eq!(messages, ["there is no device `cuda:0`", "there is no device `cuda:7`"]);
    }
}
