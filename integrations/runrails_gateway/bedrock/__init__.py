"""Models on Amazon Bedrock, asked for in OpenAI's or Anthropic's words: Converse is spoken to the other side."""
