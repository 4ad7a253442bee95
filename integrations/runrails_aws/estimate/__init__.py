"""What the gateway's own infrastructure costs a month on AWS, and the guard's share in the cost of a call."""

from runrails_aws.estimate.model import Estimate, Line, Plan, Variant, estimate

__all__ = ["Estimate", "Line", "Plan", "Variant", "estimate"]
