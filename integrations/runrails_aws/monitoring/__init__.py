"""Dashboards and alarms on CloudWatch, made of the metrics that `runrails.metrics` lists."""

from runrails_aws.monitoring.alarms import alarms_of, detector_of
from runrails_aws.monitoring.dashboard import dashboard_of
from runrails_aws.monitoring.watched import Watched

__all__ = ["Watched", "alarms_of", "dashboard_of", "detector_of"]
