"""A gateway that speaks OpenAI's and Anthropic's HTTP, and lets no call start that its budgets do not cover."""
