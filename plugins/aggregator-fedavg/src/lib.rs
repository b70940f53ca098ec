//! FedAvg: the weighted mean of the clients' parameters.
