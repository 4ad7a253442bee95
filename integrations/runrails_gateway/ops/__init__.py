"""What operators see of a gateway: metrics, a log of requests, traces. Each is a watcher of exchanges."""
