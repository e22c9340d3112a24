"""The APIs of old that only pass a request on to the image or the network service, to the microversion that ends them.

Every request is one of the caller's own to that service: what it forbids is forbidden here.
"""
