"""KAT-OTel: kernel-level anomaly detection for distributed inference, on OpenTelemetry."""
