//! FLAb's antibody fitness data as federated clients.
