"""The projection: events become rows of the read model. It knows neither Faust nor Kafka, only records and SQL."""
