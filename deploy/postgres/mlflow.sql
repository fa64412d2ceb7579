-- MLflow gets a database of its own, because its migrations and the registry's clash.
CREATE DATABASE mlflow OWNER abair;
