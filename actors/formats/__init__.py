"""The formats that batches are written in: text in, a request that is not validated yet out."""
