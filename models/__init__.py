"""Models: customer clusters, fitted on a sample and scored in Spark."""
