"""CloudFormation templates that run the gateway on AWS."""

from runrails_aws.deploy.template import VARIANTS, Variant, template

__all__ = ["VARIANTS", "Variant", "template"]
