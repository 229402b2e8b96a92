"""Rows and objects.

``sql`` defines the interface of databases, ``sqlite`` and ``postgres`` implement it; ``migrations`` has the
common schema. Modules named after objects contain the statements; the first parameter of each function is a
transaction (:class:`~wherry.hub.store.sql.Tx`). ``objects`` defines the interface of object stores, ``files``
and ``s3`` implement it.
"""
