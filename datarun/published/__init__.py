"""What is told to others about the events: JSON Schemas, examples, AsyncAPI, a page. All made from the declarations."""
