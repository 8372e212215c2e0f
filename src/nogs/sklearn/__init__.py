"""A scikit-learn estimator for images in arrays.

>>> from nogs.sklearn import HardAttentionClassifier
>>> classifier = HardAttentionClassifier(method="ps-nogs", glimpses=5).fit(X, y)
>>> classifier.predict(X_test), classifier.score(X_test, y_test)
"""

from nogs.sklearn.classifier import HardAttentionClassifier

__all__ = ["HardAttentionClassifier"]
